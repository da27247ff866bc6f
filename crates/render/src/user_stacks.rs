//! How user stacks were found, in a sentence.

use spark_trace_analysis::user_stacks::UserStacks;
use spark_trace_recording::Way;
use spark_trace_recording::units::count;

/// Stands where frames are shown.
pub fn sentence(stacks: &UserStacks) -> String {
    let number = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let mut text = format!(
        "Of the user stacks {} unwound by the tables of their code, and {} by frame pointers",
        were(stacks.unwound),
        were(stacks.frame_pointers)
    );
    if stacks.not_unwound > 0 {
        text += &format!(
            "; {} of {} could not be unwound in time",
            count(number(stacks.not_unwound), "copy", "copies"),
            stacks.copies
        );
    }
    text
}

fn were(count: u64) -> String {
    if count == 1 { "1 was".to_owned() } else { format!("{count} were") }
}

/// Behind the title of a stack.
pub fn of_one(way: Option<Way>) -> &'static str {
    match way {
        Some(Way::EhFrame) => ", unwound",
        Some(Way::FramePointers) | None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_says_how_many() {
        let stacks = UserStacks { unwound: 41, frame_pointers: 1, copies: 60, not_unwound: 0 };
        assert_eq!(
            sentence(&stacks),
            "Of the user stacks 41 were unwound by the tables of their code, and 1 was by frame pointers"
        );
        let text = sentence(&UserStacks { not_unwound: 1, ..stacks });
        assert!(text.ends_with("; 1 copy of 60 could not be unwound in time"), "{text}");
    }
}
