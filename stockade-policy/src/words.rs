/*!
The words of the language: how each choice is spelt, for reading and for writing.
*/
/// A choice among a few words.
pub trait Word: Copy + PartialEq + 'static {
    /// Every choice and its word.
    const WORDS: &'static [(&'static str, Self)];

    /// How it is spelt in a policy.
    #[must_use]
    fn word(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, choice)| *choice == self);
        found.expect("every choice has a word").0
    }

    /// The choice that is spelt so.
    #[must_use]
    fn of(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, choice)| *choice)
    }
}

/// The candidate that was probably meant, or none when nothing is near enough to suggest.
#[must_use]
pub fn nearest<'w>(typed: &str, candidates: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    /// Below this likeness a suggestion confuses more than it helps; as for reasons.
    const NEAR: f64 = 0.8;
    let typed = typed.to_ascii_lowercase().replace('_', "-");
    candidates
        .into_iter()
        .map(|word| {
            let edits = strsim::normalized_damerau_levenshtein(&typed, word);
            (edits.max(strsim::jaro_winkler(&typed, word)), word)
        })
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, word)| word)
}

/// `a, b or c`.
pub(crate) fn one_of<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let words: Vec<_> = words.into_iter().collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}
