//! Chat templates with the constructs of published families render as in transformers. Values by
//! `tests/reference/make_templates.py`.

use engine::text::{ChatTemplate, Message};
use serde::Deserialize;

use crate::support::read;

#[derive(Deserialize)]
struct Reference {
    chats: Vec<Vec<Message>>,
    templates: Vec<Template>,
}

/// Of each chat the text without and with what opens the assistant's turn; none: the template refuses it.
#[derive(Deserialize)]
struct Template {
    name: String,
    source: String,
    texts: Vec<Option<String>>,
}

#[test]
fn templates_in_the_manner_of_every_family_render_as_in_transformers() {
    let Reference { chats, templates } = read("templates.json");
    assert_eq!(templates.len(), 5);
    for Template {
        name,
        source,
        texts,
    } in templates
    {
        let special = |token: &str| Some(token.to_owned());
        let template = ChatTemplate::new(&source, special("<s>"), special("</s>")).unwrap();
        assert_eq!(texts.len(), 2 * chats.len());
        let asked = chats
            .iter()
            .flat_map(|chat| [false, true].map(|open| (chat, open)));
        for ((chat, open), want) in asked.zip(texts) {
            let got = template.render(chat, open);
            match want {
                Some(want) => assert_eq!(got.unwrap(), want, "{name}: {chat:?}"),
                None => assert!(got.is_err(), "{name} takes {got:?}"),
            }
        }
    }
}
