//! What a person sees while something takes its time: one line for each step that is done, with how long it took,
//! and on a terminal a moving line that names the steps under way.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The steps under way. Written to stderr, so that stdout stays for results.
#[derive(Clone, Debug)]
pub struct Progress {
    board: Arc<Mutex<Board>>,
    moving: bool,
}

#[derive(Debug, Default)]
struct Board {
    steps: Vec<(u64, String)>,
    last_id: u64,
    frame: usize,
}

/// One step. Dropping it without [`Step::done`] takes it off the board silently: an error will tell.
#[derive(Debug)]
pub struct Step {
    progress: Progress,
    id: u64,
    since: Instant,
}

const FRAMES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Starts the moving line if stderr is a terminal.
    pub fn new() -> Self {
        let progress = Self { board: Arc::default(), moving: stderr().is_terminal() };
        if progress.moving {
            let board = Arc::downgrade(&progress.board);
            thread::spawn(move || {
                while let Some(board) = board.upgrade() {
                    lock(&board).draw();
                    drop(board);
                    thread::sleep(Duration::from_millis(100));
                }
            });
        }
        progress
    }

    /// A step begins. `doing` is what the moving line says, as in `installing postgresql`.
    pub fn step(&self, doing: &str) -> Step {
        let mut board = lock(&self.board);
        board.last_id += 1;
        let id = board.last_id;
        board.steps.push((id, doing.to_owned()));
        Step { progress: self.clone(), id, since: Instant::now() }
    }

    /// A line of its own, above the moving one.
    pub fn say(&self, line: &str) {
        let _board = lock(&self.board);
        self.print(line);
    }

    fn print(&self, line: &str) {
        let clear = if self.moving { "\r\x1b[2K" } else { "" };
        // Nobody may be reading any more, and the work matters more than the telling.
        let _ = writeln!(stderr(), "{clear}{line}");
    }
}

impl Step {
    /// Says that it may take long, where no moving line shows that something is going on.
    pub fn slow(&self, notice: &str) {
        if !self.progress.moving {
            self.progress.say(&format!("… {notice}"));
        }
    }

    /// Changes what the moving line says.
    pub fn now(&self, doing: &str) {
        let mut board = lock(&self.progress.board);
        if let Some((_, text)) = board.steps.iter_mut().find(|(id, _)| *id == self.id) {
            doing.clone_into(text);
        }
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// Prints `✓ what (1.2 s)`.
    pub fn done(self, what: &str) {
        self.end('✓', what);
    }

    /// Prints `✗ what (1.2 s)`.
    pub fn failed(self, what: &str) {
        self.end('✗', what);
    }

    fn end(self, mark: char, what: &str) {
        let seconds = self.since.elapsed().as_secs_f32();
        self.progress.say(&format!("{mark} {what} ({seconds:.1} s)"));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let mut board = lock(&self.progress.board);
        board.steps.retain(|(id, _)| *id != self.id);
        if self.progress.moving && board.steps.is_empty() {
            let _ = write!(stderr(), "\r\x1b[2K");
        }
    }
}

impl Board {
    fn draw(&mut self) {
        if self.steps.is_empty() {
            return;
        }
        self.frame = (self.frame + 1) % FRAMES.len();
        let doing: Vec<&str> = self.steps.iter().map(|(_, doing)| doing.as_str()).collect();
        // Not beyond one line of a usual terminal: a wrapped line cannot be wiped.
        let text: String = doing.join(", ").chars().take(76).collect();
        let _ = write!(stderr(), "\r\x1b[2K{} {text}", FRAMES[self.frame]);
        let _ = stderr().flush();
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}
