//! Texts as words, in the ways that the measures count them.

/// Lower-case runs of letters and digits.
pub(super) fn plain(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Lower-case words without punctuation and articles.
pub(super) fn bare(text: &str) -> Vec<String> {
    let letters = text.to_lowercase();
    let letters: String = letters
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    let words = letters.split_whitespace();
    words
        .filter(|word| !["a", "an", "the"].contains(word))
        .map(str::to_owned)
        .collect()
}

/// Words as they are written, each mark of punctuation a word of its own; points and commas between digits stay.
pub(super) fn marked(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let at = |place: Option<usize>| place.and_then(|place| letters.get(place)).copied();
    let mut words = vec![String::new()];
    for (place, letter) in letters.iter().enumerate() {
        let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        let between = is_digit(at(place.checked_sub(1))) && is_digit(at(Some(place + 1)));
        let is_mark = letter.is_ascii_punctuation() && !(matches!(letter, '.' | ',') && between);
        if letter.is_whitespace() {
            words.push(String::new());
        } else if is_mark {
            words.push(letter.to_string());
            words.push(String::new());
        } else if let Some(last) = words.last_mut() {
            last.push(*letter);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_as_each_measure_wants() {
        let text = "The dog's 1,234.5 km: an  Éclair!";
        assert_eq!(
            plain(text),
            ["the", "dog", "s", "1", "234", "5", "km", "an", "éclair"]
        );
        assert_eq!(bare(text), ["dogs", "12345", "km", "éclair"]);
        assert_eq!(
            marked(text),
            [
                "The", "dog", "'", "s", "1,234.5", "km", ":", "an", "Éclair", "!"
            ]
        );
    }
}
