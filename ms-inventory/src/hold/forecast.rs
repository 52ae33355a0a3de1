use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::stock::Levels;

/// More products than this are not remembered: about a megabyte.
const MAX_PRODUCTS: usize = 10_000;

/// The most batches that go the long way after a forecast that failed. Where another instance sells the same products all
/// the time, most would.
const MAX_LONG_WAYS: u32 = 16;

/// The levels of stock as the last batch of this instance left them.
///
/// They are a guess: others may have changed them since. A batch is decided on the guess and written by one statement that
/// changes nothing unless the guess is true, so that a batch costs one round trip instead of five. Losing a forecast, or
/// having a wrong one, costs time and nothing else.
#[derive(Debug, Default)]
pub(super) struct Forecast(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    levels: Levels,
    /// How many batches still go the long way.
    long_ways: u32,
    /// How many would after the next failure: twice as many each time, until a forecast is true.
    next_long_ways: u32,
}

impl Forecast {
    /// The levels of those products that are known; `None` where guessing has just failed.
    pub(super) fn levels(&self, products: &[i64]) -> Option<Levels> {
        let mut state = self.state();
        if state.long_ways > 0 {
            state.long_ways -= 1;
            return None;
        }
        Some(products.iter().filter_map(|id| Some((*id, *state.levels.get(id)?))).collect())
    }

    /// A batch was committed and left these levels.
    pub(super) fn learn(&self, levels: Levels) {
        let mut state = self.state();
        let new = levels.keys().filter(|id| !state.levels.contains_key(id)).count();
        if state.levels.len() + new > MAX_PRODUCTS {
            state.levels.clear();
        }
        if levels.len() <= MAX_PRODUCTS {
            state.levels.extend(levels);
        }
    }

    /// It was right.
    pub(super) fn was_true(&self) {
        self.state().next_long_ways = 0;
    }

    /// It was wrong.
    pub(super) fn was_false(&self) {
        let mut state = self.state();
        state.long_ways = state.next_long_ways;
        state.next_long_ways = (2 * state.next_long_ways).clamp(1, MAX_LONG_WAYS);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever a panic left there is as good a guess as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
