//! From which time on an index of due times is read, by those who take what is due again and again.
//!
//! A row that was taken stays in the index under its old time for as long as some transaction is open that could still see
//! it, a dump of the database for example, and a look that begins at the first time walks over all of them. So a look
//! begins a little before the last one ended. Times are written before they are committed: whatever took longer to commit
//! than that, or was locked by somebody who then rolled back, is found by a full look, which is taken once in a while.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// How far the looks have come, by the clock of the database.
#[derive(Debug, Default)]
pub struct Scan(Mutex<State>);

/// One look.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// From which time on; `None`: from the first.
    pub from: Option<DateTime<Utc>>,
    /// Up to which.
    pub now: DateTime<Utc>,
}

impl Scan {
    /// Begins a look, in the transaction that takes what it finds.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn begin(&self, conn: &mut PgConnection) -> sqlx::Result<Look> {
        let now = sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(conn).await?;
        Ok(Look { from: self.state().begin(Instant::now()), now })
    }

    /// A look took all that it found due before `until`, and that is committed.
    pub fn taken(&self, until: DateTime<Utc>) {
        self.state().from = Some(until - State::COMMIT_TIME);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct State {
    from: Option<DateTime<Utc>>,
    full_look: Option<Instant>,
}

impl State {
    const COMMIT_TIME: Duration = Duration::from_secs(5);
    const FULL_LOOK_PERIOD: Duration = Duration::from_secs(30);

    fn begin(&mut self, now: Instant) -> Option<DateTime<Utc>> {
        let full_look_due = self.full_look.is_none_or(|at| now.duration_since(at) >= Self::FULL_LOOK_PERIOD);
        if full_look_due {
            self.full_look = Some(now);
            return None;
        }
        self.from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_begins_a_little_before_the_last_one_ended_and_at_the_first_time_once_in_a_while() {
        let (scan, begun) = (Scan::default(), Instant::now());
        let begin = |second| scan.state().begin(begun + Duration::from_secs(second));
        let at = |second: u32| format!("2026-11-27T00:00:{second:02}Z").parse().unwrap();
        assert_eq!(begin(0), None);
        assert_eq!(begin(1), None, "the first one failed");
        scan.taken(at(10));
        assert_eq!(begin(29), Some(at(5)));
        assert_eq!(begin(30), None);
        scan.taken(at(7));
        assert_eq!(begin(59), Some(at(2)));
    }
}
