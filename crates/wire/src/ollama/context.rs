//! How much context a request needs.
//!
//! A server that is not told reserves little, and leaves out the oldest of what does not fit. To reserve more than before
//! it loads the model anew; so what is asked for grows in few steps.

/// The least that is asked for.
const LEAST: u64 = 8192;
/// What is set aside for the answer where nobody says how long it may be.
const ANSWER: u64 = 4096;

/// The value of `num_ctx` for a prompt of so many tokens by estimate: the first step that prompt and answer fit in, or the
/// model's limit. The prompt is taken for a quarter longer: too much context costs memory, too little is an error.
pub(super) fn reserved(prompt: u64, answer: Option<u64>, most: Option<u64>) -> u64 {
    size(prompt.saturating_add(prompt / 4), answer, most)
}

fn size(prompt: u64, answer: Option<u64>, most: Option<u64>) -> u64 {
    let needed = prompt.saturating_add(answer.unwrap_or(ANSWER));
    let step = needed.max(LEAST).checked_next_power_of_two().unwrap_or(u64::MAX);
    step.min(most.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_grows_in_steps_up_to_the_models_limit() {
        assert_eq!(size(0, Some(1), None), 8192);
        assert_eq!(size(4096, Some(4096), None), 8192);
        assert_eq!(size(4097, Some(4096), None), 16384);
        assert_eq!(size(4097, None, None), 16384);
        assert_eq!(size(20_000, Some(64_000), None), 131_072);
        assert_eq!(size(20_000, Some(64_000), Some(40_960)), 40_960);
        assert_eq!(size(1, Some(1), Some(2048)), 2048);
        assert_eq!(size(u64::MAX, Some(u64::MAX), None), u64::MAX);
        assert_eq!((reserved(4000, Some(3192), None), reserved(4001, Some(3193), None)), (8192, 16_384));
        assert_eq!(reserved(u64::MAX, None, None), u64::MAX);
    }
}
