//! What only the source knows, and images and documents that the target does not see.

use super::Fitter;
use crate::loss::{Place, Weight};
use crate::opaque::Extra;
use crate::quirks::Images;
use crate::request::{Content, Document, Image, Part, Role, Source};

impl Fitter<'_, '_> {
    /// What only the source knows, and images and documents that the target does not see.
    pub(super) fn extras(&mut self) {
        for extra in &self.request.extras {
            self.extra(&extra.name, extra);
        }
        for part in &self.request.system {
            self.said_by(Role::System, part);
            self.part(part);
        }
        for turn in &self.request.turns {
            for extra in &turn.extras {
                self.extra(format_args!("{}.{}", turn.place, extra.name), extra);
            }
            for part in &turn.parts {
                self.said_by(turn.role, part);
                self.part(part);
            }
        }
        for tool in &self.request.tools {
            for extra in &tool.extras {
                self.extra(format_args!("{}.{}", tool.place, extra.name), extra);
            }
        }
    }

    /// What nobody of that role says in any protocol.
    fn said_by(&mut self, role: Role, part: &Part<'_>) {
        let why = match (role, &part.content) {
            (_, Content::Text(_) | Content::Extra(_)) => return,
            (Role::System, _) => "instructions are made of text",
            (Role::Assistant, Content::Image(_) | Content::Document(_)) => {
                "no model shows images or documents in its turns"
            }
            (Role::Assistant, Content::Result(_)) => "results of calls are not the model's",
            (Role::User, Content::Call(_) | Content::Thinking(_)) => "only the model calls tools and thinks",
            _ => return,
        };
        self.losses.refuse(part.place, why);
    }

    fn extra(&mut self, path: impl std::fmt::Display, extra: &Extra<'_>) {
        if extra.origin != self.own && extra.weight > Weight::Silent {
            let reason = format!("it has no counterpart in the {} protocol", self.own.as_str());
            self.losses.add(path, reason, extra.weight);
        }
    }

    fn part(&mut self, part: &Part<'_>) {
        let place = part.place;
        for extra in &part.extras {
            self.extra(format_args!("{place}.{}", extra.name), extra);
        }
        match &part.content {
            Content::Extra(extra) if extra.origin != self.own => {
                let reason = format!("`{}` has no counterpart in the {} protocol", extra.name, self.own.as_str());
                self.losses.add(place, reason, extra.weight);
            }
            Content::Extra(_) => {}
            Content::Text(text) => {
                for citation in &text.citations {
                    self.extra(format_args!("{place}.citations"), citation);
                }
            }
            Content::Image(image) => self.image(place, image),
            Content::Document(document) => self.document(place, document),
            Content::Result(result) => result.content.iter().for_each(|part| self.part(part)),
            Content::Call(_) | Content::Thinking(_) | Content::Refusal(_) => {}
        }
    }

    fn image(&mut self, place: Place, image: &Image<'_>) {
        match (&image.source, self.quirks.images) {
            (_, Images::None) => self.losses.refuse(place, "this model does not see images"),
            (Source::File(_), _) if self.request.source != self.own => {
                self.losses.refuse(place, "the file lies at another provider: send the image itself");
            }
            (Source::Url(_), Images::Inline) => {
                self.losses.refuse(place, "this upstream does not fetch images: send it as base64");
            }
            _ => {}
        }
        if let (Some(detail), false) = (&image.detail, self.quirks.image_detail)
            && detail != "auto"
        {
            self.losses.hint(format_args!("{place}.detail"), "the upstream chooses how closely it looks");
        }
    }

    fn document(&mut self, place: Place, document: &Document<'_>) {
        match &document.source {
            Source::Base64 { .. } if !self.quirks.documents => {
                self.losses.refuse(place, "this model does not read documents: send their text");
            }
            Source::Url(_) if !self.quirks.document_urls => {
                self.losses.refuse(place, "this upstream does not fetch documents: send it as base64");
            }
            Source::File(_) if self.request.source != self.own => {
                self.losses.refuse(place, "the file lies at another provider: send the document itself");
            }
            Source::Parts(parts) => parts.iter().for_each(|part| self.part(part)),
            _ => {}
        }
        if document.citations && self.request.source != self.own {
            self.losses.hint(format_args!("{place}.citations"), "the upstream does not say what it quotes");
        }
    }
}
