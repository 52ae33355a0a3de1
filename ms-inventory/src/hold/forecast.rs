use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::stock::Levels;

/// More products than this are not remembered: about a megabyte.
const MAX_PRODUCTS: usize = 10_000;

/// How many batches go the long way after a forecast that failed. Where another instance sells the same products, most
/// would.
const LONG_WAYS: u32 = 16;

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
    long_ways: u32,
}

impl Forecast {
    /// The levels of these products; `None` where one is not known, or where guessing has just failed.
    pub(super) fn levels(&self, products: &[i64]) -> Option<Levels> {
        let mut state = self.state();
        if state.long_ways > 0 {
            state.long_ways -= 1;
            return None;
        }
        products.iter().map(|id| Some((*id, *state.levels.get(id)?))).collect()
    }

    /// A batch was committed and left these levels.
    pub(super) fn learn(&self, levels: Levels) {
        let mut state = self.state();
        if state.levels.len() + levels.len() > MAX_PRODUCTS {
            state.levels.clear();
        }
        state.levels.extend(levels);
    }

    /// It was wrong.
    pub(super) fn failed(&self) {
        self.state().long_ways = LONG_WAYS;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever a panic left there is as good a guess as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
