//! A JSON object, made member by member.

use serde::Serialize;

/// A JSON object in the making. Its members keep their order.
#[derive(Default)]
pub(super) struct Object {
    members: String,
}

impl Object {
    /// Adds a member.
    pub(super) fn put(&mut self, name: &str, value: impl Serialize) {
        // JSON has a form for every value of an entry, so this cannot fail.
        self.put_text(name, &serde_json::to_string(&value).unwrap_or_else(|_| "null".to_owned()));
    }

    /// Adds a member, if there is a value.
    pub(super) fn put_known(&mut self, name: &str, value: Option<impl Serialize>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    /// Adds an object as a member.
    pub(super) fn put_object(&mut self, name: &str, object: &Object) {
        self.put_text(name, &object.to_text());
    }

    fn put_text(&mut self, name: &str, value: &str) {
        let separator = if self.members.is_empty() { "" } else { "," };
        // The names are the server's own: none holds a quote.
        self.members.extend([separator, "\"", name, "\":", value]);
    }

    /// The object.
    pub(super) fn to_text(&self) -> String {
        format!("{{{}}}", self.members)
    }
}
