//! Relay prototype (a): hyper's HTTP/1 server, and hyper's HTTP/1 client connection driven by the client's own task.

use std::{
    cell::RefCell,
    collections::VecDeque,
    convert::Infallible,
    future::{Future, poll_fn},
    io::IoSlice,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use common::{HOP_BY_HOP, Scan};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Request, Response, StatusCode, Uri,
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::{Connection, SendRequest},
    header::{CONNECTION, CONTENT_LENGTH},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Several pieces of received memory that go out as one frame, by one vectored write.
#[derive(Default)]
struct Pieces {
    list: VecDeque<Bytes>,
    left: usize,
}

impl Pieces {
    fn push(&mut self, data: Bytes) {
        self.left += data.len();
        self.list.push_back(data);
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.left
    }
    fn chunk(&self) -> &[u8] {
        self.list.front().map_or(&[], |b| b)
    }
    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let n = dst.len().min(self.list.len());
        for (slot, piece) in dst.iter_mut().zip(&self.list) {
            *slot = IoSlice::new(piece);
        }
        n
    }
    fn advance(&mut self, mut n: usize) {
        self.left -= n;
        while let Some(front) = self.list.front_mut() {
            if n < front.len() {
                return front.advance(n);
            }
            n -= front.len();
            self.list.pop_front();
        }
    }
}

/// A request body held whole, sent as one frame.
struct Held(Option<Pieces>);

impl Body for Held {
    type Data = Pieces;
    type Error = Infallible;
    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Pieces>, Infallible>>> {
        Poll::Ready(self.0.take().map(|p| Ok(Frame::data(p))))
    }
    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |p| p.left as u64))
    }
}

/// An upstream connection: nothing reads or writes on it unless its owner polls `conn`.
struct Upstream {
    send: SendRequest<Held>,
    conn: Connection<TokioIo<TcpStream>, Held>,
}

thread_local! {
    static POOL: RefCell<Vec<Upstream>> = const { RefCell::new(Vec::new()) };
}

impl Upstream {
    async fn checkout(addr: SocketAddr) -> Result<Self, Fault> {
        while let Some(mut up) = POOL.with_borrow_mut(Vec::pop) {
            // An idle connection is not polled, so its end is only seen here.
            let open = poll_fn(|cx| Poll::Ready(Pin::new(&mut up.conn).poll(cx).is_pending())).await;
            if open && up.send.is_ready() {
                return Ok(up);
            }
        }
        let socket = TcpStream::connect(addr).await?;
        socket.set_nodelay(true)?;
        let (send, conn) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        Ok(Self { send, conn })
    }

    fn checkin(self) {
        POOL.with_borrow_mut(|pool| {
            if pool.len() < 1100 {
                pool.push(self);
            }
        });
    }
}

/// The answer on its way down; owns the upstream connection until the last byte.
struct Down {
    body: Option<Incoming>,
    up: Option<Upstream>,
    scan: Scan,
}

impl Down {
    fn end(&mut self) {
        self.body = None;
        if let Some(up) = self.up.take() {
            up.checkin();
        }
    }
}

impl Body for Down {
    type Data = Pieces;
    type Error = Fault;

    /// Takes all frames that are there: what one upstream read brought leaves as one frame.
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Pieces>, Fault>>> {
        let this = &mut *self;
        let mut batch = Pieces::default();
        while batch.list.len() < 512 {
            let (Some(up), Some(body)) = (&mut this.up, &mut this.body) else { break };
            // Its result is seen through the body; polling it is what moves the bytes.
            let closed = Pin::new(&mut up.conn).poll(cx).is_ready();
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        this.scan.chunk(&data);
                        batch.push(data);
                    }
                    if body.is_end_stream() {
                        this.end();
                    }
                }
                Poll::Ready(None) => {
                    if closed {
                        this.up = None;
                    }
                    this.end();
                }
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Some(Err(e.into()))),
                Poll::Pending => break,
            }
        }
        match (batch.left, &this.body) {
            (0, Some(_)) => Poll::Pending,
            (0, None) => Poll::Ready(None),
            _ => Poll::Ready(Some(Ok(Frame::data(batch)))),
        }
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

fn strip(headers: &mut HeaderMap) {
    if let Some(named) = headers.get(CONNECTION).and_then(|v| v.to_str().ok()).map(str::to_owned) {
        for name in named.split(',').map(str::trim).filter(|n| !n.eq_ignore_ascii_case("close")) {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

async fn relay(mut request: Request<Incoming>, addr: SocketAddr) -> Result<Response<Down>, Fault> {
    let mut held = Pieces::default();
    while let Some(frame) = request.body_mut().frame().await {
        if let Ok(data) = frame?.into_data() {
            held.push(data);
        }
    }
    let (mut parts, _) = request.into_parts();
    strip(&mut parts.headers);
    parts.headers.insert(CONTENT_LENGTH, held.left.into());
    parts.uri = parts.uri.path_and_query().map_or_else(Uri::default, |p| Uri::from(p.clone()));
    let mut up = Upstream::checkout(addr).await?;
    let body = Held((held.left > 0).then_some(held));
    let response = {
        let mut sent = pin!(up.send.send_request(Request::from_parts(parts, body)));
        poll_fn(|cx| {
            let closed = Pin::new(&mut up.conn).poll(cx);
            match (sent.as_mut().poll(cx), closed) {
                (Poll::Ready(r), _) => Poll::Ready(r.map_err(Fault::from)),
                (Poll::Pending, Poll::Ready(_)) => Poll::Ready(Err("upstream closed".into())),
                (Poll::Pending, Poll::Pending) => Poll::Pending,
            }
        })
        .await?
    };
    let (mut parts, body) = response.into_parts();
    strip(&mut parts.headers);
    let mut down = Down { body: Some(body), up: Some(up), scan: Scan::default() };
    if down.body.as_ref().is_some_and(Body::is_end_stream) {
        down.end();
    }
    Ok(Response::from_parts(parts, down))
}

async fn serve(client: TcpStream, addr: SocketAddr) {
    let service = service_fn(|request| async move {
        Ok::<_, Infallible>(relay(request, addr).await.unwrap_or_else(|_| {
            let mut response = Response::new(Down { body: None, up: None, scan: Scan::default() });
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }))
    });
    // The error has nobody to go to: the client is gone.
    let _gone = hyper::server::conn::http1::Builder::new()
        .auto_date_header(false)
        .writev(true)
        .serve_connection(TokioIo::new(client), service)
        .await;
}

fn main() -> Result<(), String> {
    common::run(serve)
}
