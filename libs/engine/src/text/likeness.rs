//! Whether two tokenizers make the same ids of a text: tried with texts of every kind.

use super::Tokenizer;
use super::sentencepiece::BLANK;

/// Texts on which ways of cutting part: contractions, digits, blanks, lines, letters of other scripts, composed and
/// decomposed accents, symbols, what must be spelled in bytes, and code.
const TEXTS: [&str; 9] = [
    "Hello World, it's the dog's; we'll see: I'VE, they're",
    "1 22 333 4444 55555 3.14159 2026-11-26 0x1F",
    "blanks  two   three    four\tand a tab\n\n\nthree lines \n \n indented\r\n",
    "Ünïcödé cafe\u{301} naïve Straße — “quotes” … ½",
    "日本語のテキスト 한국어 текст العربية ไทย",
    "😀👍🏽 🇩🇪 ∑∂√ €£¥",
    "fn main() { let x_1 = [0; 16]; } // <b>&amp;</b> snake_case CamelCase",
    "\n\n\tno blank \u{a0}\u{200b}\u{1}first",
    "",
];
/// The same for those that put a blank of their own in front of a text.
const BEGUN_WITH_A_BLANK: [&str; 4] = [" ", " one", "  two  blanks", "    four\n"];
/// Added tokens that are tried within texts: all, but for families that have hundreds.
const ADDED: usize = 32;

/// Where two tokenizers agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Likeness {
    /// On texts that do not begin with a blank, without special tokens in them.
    pub(crate) texts: bool,
    /// On texts that begin with blanks.
    pub(crate) begun_with_a_blank: bool,
    /// On texts around special tokens.
    pub(crate) around_special: bool,
}

impl Likeness {
    /// On everything that was tried.
    pub(crate) const fn is_whole(self) -> bool {
        self.texts && self.begun_with_a_blank && self.around_special
    }
}

impl Tokenizer {
    /// Where the other makes the same ids, tokens around a sequence included.
    pub(crate) fn likeness(&self, other: &Self) -> Likeness {
        let alike = |text: &str| {
            let own = self.encode_with_special(text);
            let theirs = other.encode_with_special(text);
            matches!((own, theirs), (Ok(own), Ok(theirs)) if own == theirs)
        };
        let mut added: Vec<_> = self
            .parts()
            .tokenizer
            .get_added_tokens_decoder()
            .into_iter()
            .collect();
        added.sort_unstable_by_key(|(id, _)| *id);
        // What stands for blanks is tried as blanks.
        let spelled = added.iter().map(|(_, added)| added.content.as_str());
        let spelled = spelled.filter(|token| !token.contains(BLANK)).take(ADDED);
        let mut around = spelled.map(|token| {
            format!("{token}one{token}two {token} three{token}  four\n{token}\nfive {token}")
        });
        Likeness {
            texts: TEXTS.into_iter().all(alike),
            begun_with_a_blank: BEGUN_WITH_A_BLANK.into_iter().all(alike),
            around_special: around.all(|text| alike(&text)),
        }
    }
}
