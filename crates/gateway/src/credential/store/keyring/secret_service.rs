//! The Secret Service: the keyring of GNOME, KDE and KeePassXC, asked over the user's message bus.
//!
//! Values pass the bus as they are. Who can read along there is a process of the same user, and could ask for them itself.

use std::time::Duration;

use super::dbus::{Body, Bus, BusError, Call, Message, Reader};
use super::{Item, Keyring, KeyringError, Patience};
use crate::config::{DBUS_SESSION_BUS_ADDRESS, Env, XDG_RUNTIME_DIR};
use crate::secret::Secret;
use crate::system::{self, BusStream};

/// How long a keyring may take that asks nobody.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the user may take to unlock it.
const PROMPT: Duration = Duration::from_secs(120);

const SERVICE: &str = "org.freedesktop.secrets";
const ROOT: &str = "/org/freedesktop/secrets";
const OF_SERVICE: &str = "org.freedesktop.Secret.Service";
const OF_COLLECTION: &str = "org.freedesktop.Secret.Collection";
const OF_ITEM: &str = "org.freedesktop.Secret.Item";
const OF_PROMPT: &str = "org.freedesktop.Secret.Prompt";
/// What stands for "no object".
const NONE: &str = "/";

/// The keyring that the session's bus leads to.
#[derive(Debug)]
pub(super) struct SecretService {
    /// The addresses of the bus; `None`: there is no session.
    bus: Option<String>,
}

impl SecretService {
    pub(super) fn new(env: &Env) -> Self {
        let text = |variable| env.read(variable).and_then(|value| value.into_string().ok());
        let default = || text(&XDG_RUNTIME_DIR).map(|folder| format!("unix:path={folder}/bus"));
        Self { bus: text(&DBUS_SESSION_BUS_ADDRESS).or_else(default) }
    }

    fn open(&self, patience: Patience) -> Result<Session, KeyringError> {
        let Some(address) = &self.bus else {
            return Err(KeyringError::Absent("there is no session bus: `DBUS_SESSION_BUS_ADDRESS` is not set".into()));
        };
        let stream = system::connect(address)
            .map_err(|why| KeyringError::Absent(format!("the session bus cannot be reached: {why}")))?;
        let bus = Bus::new(stream, &BusStream::own_user(), ANSWER).map_err(absent)?;
        let mut session = Session { bus, path: String::new(), patience };
        let mut plain = Body::default();
        plain.text("plain").variant("s", |body| body.text(""));
        let opened = session.service("OpenSession", "sv", &plain).map_err(absent)?;
        session.path = opened
            .read("vo", |reader| {
                // What a plain session has to say is an empty text.
                reader.signature().filter(|form| *form == "s")?;
                reader.text()?;
                reader.text().map(str::to_owned)
            })
            .map_err(failed)?;
        Ok(session)
    }
}

/// Where no keyring answers at all.
fn absent(error: BusError) -> KeyringError {
    match error {
        BusError::Refused(name, words) => {
            KeyringError::Absent(format!("no keyring answers on the session bus: {}", said(&name, &words)))
        }
        other => failed(other),
    }
}

fn said(name: &str, words: &str) -> String {
    if words.is_empty() { name.to_owned() } else { words.to_owned() }
}

fn failed(error: BusError) -> KeyringError {
    match error {
        BusError::Refused(name, _) if name.ends_with(".IsLocked") => KeyringError::Locked,
        BusError::Refused(name, words) => KeyringError::Failed(said(&name, &words)),
        BusError::Slow => KeyringError::Failed("it did not answer in time".into()),
        BusError::Io(why) => KeyringError::Failed(format!("the connection to it broke: {why}")),
        BusError::Nonsense => KeyringError::Failed("it answered what could not be understood".into()),
    }
}

/// One conversation with the service.
struct Session {
    bus: Bus<BusStream>,
    path: String,
    patience: Patience,
}

impl Session {
    fn service(&mut self, member: &str, signature: &str, body: &Body) -> Result<Message, BusError> {
        self.object(ROOT, OF_SERVICE, member, signature, body)
    }

    fn object(
        &mut self,
        path: &str,
        interface: &str,
        member: &str,
        signature: &str,
        body: &Body,
    ) -> Result<Message, BusError> {
        self.bus.call(Call { destination: SERVICE, path, interface, member, signature }, body)
    }

    /// The collection that new items go to.
    fn default_collection(&mut self) -> Result<String, KeyringError> {
        let mut alias = Body::default();
        alias.text("default");
        let reply = self.service("ReadAlias", "s", &alias).map_err(absent)?;
        let path = reply.read("o", |reader| reader.text().map(str::to_owned)).map_err(failed)?;
        if path == NONE {
            return Err(KeyringError::Absent("the keyring has no default collection".into()));
        }
        let mut property = Body::default();
        property.text(OF_COLLECTION).text("Locked");
        let locked = self.object(&path, "org.freedesktop.DBus.Properties", "Get", "ss", &property).map_err(failed)?;
        let locked = locked
            .read("v", |reader| {
                reader.signature().filter(|form| *form == "b")?;
                reader.bool()
            })
            .map_err(failed)?;
        if locked {
            self.unlock(&path)?;
        }
        Ok(path)
    }

    /// Unlocks an item or a collection; where that takes the user, only if there is the patience for it.
    fn unlock(&mut self, path: &str) -> Result<(), KeyringError> {
        let mut objects = Body::default();
        objects.array(4, |body| body.text(path));
        let reply = self.service("Unlock", "ao", &objects).map_err(failed)?;
        let (unlocked, prompt) =
            reply.read("aoo", |r| Some((r.texts()?.contains(&path), r.text()?.to_owned()))).map_err(failed)?;
        if unlocked { Ok(()) } else { self.prompt(&prompt) }
    }

    /// Has the keyring ask the user, where it must.
    fn prompt(&mut self, path: &str) -> Result<(), KeyringError> {
        if path == NONE {
            return Ok(());
        }
        let mut nobody = Body::default();
        nobody.text("");
        if self.patience == Patience::Never {
            let _ = self.object(path, OF_PROMPT, "Dismiss", "", &Body::default());
            return Err(KeyringError::Locked);
        }
        self.bus.extend(PROMPT);
        self.bus.listen(path).map_err(failed)?;
        self.object(path, OF_PROMPT, "Prompt", "s", &nobody).map_err(|_| KeyringError::Locked)?;
        let completed = self.bus.signal(path, "Completed").map_err(failed)?;
        let dismissed = completed.read("bv", Reader::bool).map_err(failed)?;
        self.bus.extend(ANSWER);
        if dismissed { Err(KeyringError::Locked) } else { Ok(()) }
    }

    /// The item, unlocked. Of several (another program may have made them) the first.
    fn find(&mut self, item: &Item<'_>) -> Result<Option<String>, KeyringError> {
        let mut attributes = Body::default();
        attributes.texts(&item.attributes());
        let reply = self.service("SearchItems", "a{ss}", &attributes).map_err(failed)?;
        let first = |paths: Vec<&str>| paths.first().map(|path| path.to_string());
        let (unlocked, locked) =
            reply.read("aoao", |r| Some((first(r.texts()?), first(r.texts()?)))).map_err(failed)?;
        if let (None, Some(path)) = (&unlocked, &locked) {
            self.unlock(path)?;
        }
        Ok(unlocked.or(locked))
    }
}

impl Keyring for SecretService {
    fn get(&self, item: &Item<'_>, patience: Patience) -> Result<Option<Secret>, KeyringError> {
        let mut session = self.open(patience)?;
        let Some(path) = session.find(item)? else { return Ok(None) };
        let mut body = Body::default();
        body.text(&session.path);
        let reply = session.object(&path, OF_ITEM, "GetSecret", "o", &body).map_err(failed)?;
        let secret = reply.read("(oayays)", |reader| {
            reader.group().text()?;
            reader.bytes()?;
            std::str::from_utf8(reader.bytes()?).ok().map(Secret::new)
        });
        secret.map(Some).map_err(failed)
    }

    fn set(&self, item: &Item<'_>, value: &Secret, patience: Patience) -> Result<(), KeyringError> {
        let mut session = self.open(patience)?;
        let collection = session.default_collection()?;
        let value = value.expose().as_bytes();
        let mut body = Body::with_room(1024 + value.len());
        body.array(8, |body| {
            body.group(|body| {
                body.text("org.freedesktop.Secret.Item.Label").variant("s", |body| body.text(&item.label()))
            });
            body.group(|body| {
                body.text("org.freedesktop.Secret.Item.Attributes")
                    .variant("a{ss}", |body| body.texts(&item.attributes()))
            })
        });
        body.group(|body| body.text(&session.path).bytes(&[]).bytes(value).text("text/plain; charset=utf8"));
        // What is there with the same attributes is replaced.
        body.bool(true);
        let reply =
            session.object(&collection, OF_COLLECTION, "CreateItem", "a{sv}(oayays)b", &body).map_err(failed)?;
        let prompt = reply.read("oo", |reader| {
            reader.text()?;
            reader.text().map(str::to_owned)
        });
        session.prompt(&prompt.map_err(failed)?)
    }

    fn delete(&self, item: &Item<'_>, patience: Patience) -> Result<bool, KeyringError> {
        let mut session = self.open(patience)?;
        let Some(path) = session.find(item)? else { return Ok(false) };
        let reply = session.object(&path, OF_ITEM, "Delete", "", &Body::default()).map_err(failed)?;
        let prompt = reply.read("o", |reader| reader.text().map(str::to_owned)).map_err(failed)?;
        session.prompt(&prompt).map(|()| true)
    }

    fn answers(&self, patience: Patience) -> Result<(), KeyringError> {
        self.open(patience)?.default_collection().map(drop)
    }
}
