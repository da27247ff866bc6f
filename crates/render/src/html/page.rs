//! Writing HTML so that text can only ever be text: markup is fixed when this is compiled, everything else is escaped.

use crate::escape;

/// Names are our own, values are escaped.
pub type Attributes<'a> = &'a [(&'static str, &'a str)];

#[derive(Debug, Default)]
pub struct Page {
    html: String,
    /// Ids handed out so far.
    ids: u32,
}

impl Page {
    /// Markup that was written here, and nothing from outside: that is what `'static` is for.
    pub fn fixed(&mut self, html: &'static str) {
        self.html.push_str(html);
    }

    pub fn text(&mut self, text: &str) {
        self.html.push_str(&escape::html(text));
    }

    /// An element with nothing but text in it.
    pub fn element(&mut self, tag: &'static str, attributes: Attributes<'_>, text: &str) {
        self.within(tag, attributes, |page| page.text(text));
    }

    pub fn within(&mut self, tag: &'static str, attributes: Attributes<'_>, inside: impl FnOnce(&mut Self)) {
        self.start(tag, attributes);
        inside(self);
        self.html.push_str("</");
        self.html.push_str(tag);
        self.html.push('>');
    }

    fn start(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        self.html.push('<');
        self.html.push_str(tag);
        for (name, value) in attributes {
            self.html.push(' ');
            self.html.push_str(name);
            self.html.push_str("=\"");
            self.html.push_str(&escape::html(value));
            self.html.push('"');
        }
        self.html.push('>');
    }

    /// An element that holds nothing and has no end.
    pub fn within_void(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        self.start(tag, attributes);
    }

    /// A page whose ids go on from this one's, to be appended or not.
    pub fn part(&self) -> Self {
        Self { html: String::new(), ids: self.ids }
    }

    pub fn is_empty(&self) -> bool {
        self.html.is_empty()
    }

    pub fn append(&mut self, part: Self) {
        self.html.push_str(&part.html);
        self.ids = self.ids.max(part.ids);
    }

    /// An id that no other element of the page has.
    pub fn id(&mut self, kind: &'static str) -> String {
        self.ids += 1;
        format!("{kind}-{}", self.ids)
    }

    /// What another library drew, cleaned.
    pub(super) fn drawn(&mut self, frames: &super::svg::Frames) {
        self.html.push_str(frames.as_str());
    }

    pub fn finish(self) -> String {
        self.html
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_attributes_are_inert() {
        let mut page = Page::default();
        let hostile = "\"><script>alert(1)</script>'&\u{202e}";
        page.element("p", &[("title", hostile)], hostile);
        let inert = "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#39;&amp;\\u{202e}";
        assert_eq!(page.finish(), format!("<p title=\"{inert}\">{inert}</p>"));
    }

    #[test]
    fn ids_are_unique() {
        let mut page = Page::default();
        assert_ne!(page.id("chart"), page.id("chart"));
    }
}
