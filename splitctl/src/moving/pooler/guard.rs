//! The guard: a process beside splitctl that gives all commands to the poolers.
//!
//! No time-out of a server ends a pause of a pooler, so somebody must who stands when splitctl does not: is stopped, is
//! killed, or hangs. The guard is started before the pause, in a process group of its own. It gets words on its standard
//! input, one line each, and answers on its standard output. When the words end or the deadline comes, it finds out by
//! itself which side has the rows, and lets the clients go on there.

use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::future::{join_all, try_join_all};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, query, query_scalar};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use super::Pooler;
use super::console::Console;
use super::turn::{Reload, turn, turn_over};
use crate::database::connect;
use crate::exit::{DONE, Refused};
use crate::moving::side::Side;
use crate::moving::switches;
use crate::output::note;

/// How long the guard looks which side has the rows, at least, if it must act alone.
const LOOK: Duration = Duration::from_millis(100);
/// How long it may take to start: to log in at each pooler and at a database.
const START: Duration = Duration::from_secs(20);

/// What the guard must know. It holds passwords, so it goes through a pipe.
#[derive(Clone, Serialize, Deserialize)]
pub struct Orders {
    /// The poolers.
    pub poolers: Vec<Pooler>,
    /// A command that changes what their addresses lead to.
    pub hook: Option<String>,
    /// The side that the tables leave.
    pub from: Side,
    /// The URL of its database.
    pub url: String,
    /// The owner's name.
    pub owner_name: String,
    /// The number of the last switch.
    pub generation: i64,
    /// The server's process that will hold the locks.
    pub process: i32,
    /// How long clients may wait.
    pub max_pause: Duration,
}

#[derive(Serialize, Deserialize)]
enum Word {
    Pause,
    Turn(Side),
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Ready,
    Failed(String),
    Paused,
    /// A pause did not come about in time, and clients go on.
    Held {
        pooler: String,
        holders: Vec<i32>,
    },
    Turned {
        side: Side,
        failures: Vec<String>,
    },
}

/// How long a pause may take to come about; how long the switch may take, from the same moment on; and when the guard acts
/// alone. The rest is for what it does then.
pub fn limits(max_pause: Duration) -> [Duration; 3] {
    [max_pause / 2, max_pause * 3 / 4, max_pause * 7 / 8]
}

/// The guard, as splitctl sees it. If it is dropped, the guard acts.
pub struct Guard {
    /// What it was told.
    pub orders: Orders,
    words: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Guard {
    /// Starts it. It is logged in everywhere when this returns.
    ///
    /// # Errors
    /// If a pooler or the database does not answer.
    pub async fn start(orders: Orders) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("the program's own file is not known")?);
        command.arg("guard").stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().context("the guard cannot be started")?;
        let (words, answers) = child.stdin.take().zip(child.stdout.take()).context("the guard has no pipes")?;
        let mut guard = Self { orders, words, answers: BufReader::new(answers).lines(), child };
        let orders = serde_json::to_string(&guard.orders)?;
        guard.words.write_all(format!("{orders}\n").as_bytes()).await.context("the guard does not listen")?;
        match timeout(START, guard.answer()).await.context("the guard does not start")?? {
            Answer::Ready => Ok(guard),
            Answer::Failed(reason) => bail!(Refused(reason)),
            _ => bail!("the guard answers something else"),
        }
    }

    /// Has the clients of all poolers wait.
    ///
    /// # Errors
    /// If a transaction stays open for too long: its processes are looked up by `connection`. Clients go on then.
    pub async fn pause(&mut self, connection: &mut PgConnection) -> Result<()> {
        self.say(&Word::Pause).await?;
        match self.answer().await? {
            Answer::Paused => Ok(()),
            Answer::Failed(reason) => bail!(Refused(reason)),
            Answer::Held { pooler, holders } => {
                let holders: Vec<String> = query_scalar(HOLDERS).bind(holders).fetch_all(connection).await?;
                let holders = if holders.is_empty() { "none is left".to_owned() } else { holders.join("; ") };
                bail!(Refused(format!(
                    "{pooler}: transactions of its clients did not end within {:?} of --max-pause. Nothing was switched, \
                     and its clients go on. Sessions with an open transaction: {holders}",
                    limits(self.orders.max_pause)[0]
                )))
            }
            Answer::Ready | Answer::Turned { .. } => bail!("the guard has ended the pause"),
        }
    }

    /// Has them go on at the side that has the rows, and ends the guard; without it, if it has ended. Returns what did not
    /// work.
    pub async fn lead(mut self, side: Side) -> Vec<String> {
        let turned = self.turn(side).await;
        let Self { orders, words, mut child, .. } = self;
        drop(words);
        let _ = child.wait().await;
        match turned {
            Ok(failures) => failures,
            Err(_) => {
                let hook = orders.hook.as_deref().filter(|_| side != orders.from);
                turn(&orders.poolers, side, hook.map(|hook| (hook, orders.max_pause))).await
            }
        }
    }

    /// Has them go on at this side. Returns what did not work.
    ///
    /// # Errors
    /// If the guard is gone, or has turned them to another side by itself.
    pub async fn turn(&mut self, side: Side) -> Result<Vec<String>> {
        // If it has ended, its last answer is still there.
        let _ = self.say(&Word::Turn(side)).await;
        match self.answer().await? {
            Answer::Turned { side: turned, failures } if turned == side => Ok(failures),
            _ => bail!("the guard has turned the poolers to the other side"),
        }
    }

    async fn say(&mut self, word: &Word) -> Result<()> {
        let word = serde_json::to_string(word)?;
        self.words.write_all(format!("{word}\n").as_bytes()).await.context("the guard has ended")
    }

    async fn answer(&mut self) -> Result<Answer> {
        let line = self.answers.next_line().await?.context("the guard has ended")?;
        Ok(serde_json::from_str(&line)?)
    }
}

/// Runs as the guard.
///
/// # Errors
/// If the orders cannot be read.
pub async fn run() -> Result<u8> {
    // A read that nobody ends would hold this process back.
    let words = Receiver::from_owned_fd(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut words = BufReader::new(words.context("splitctl starts it by itself")?).lines();
    let orders: Orders = serde_json::from_str(&words.next_line().await?.context("no orders")?)?;
    let mut session = match Session::open(&orders).await {
        Ok(session) => session,
        Err(error) => {
            answer(&Answer::Failed(format!("{error:#}")));
            return Ok(DONE);
        }
    };
    answer(&Answer::Ready);
    while let Some(word) = hear(&mut words).await {
        match word {
            Word::Pause if session.pause(&mut words).await => {}
            Word::Pause => break,
            Word::Turn(side) => session.turn(side, Duration::MAX).await,
        }
    }
    Ok(DONE)
}

/// The next word. `None` if splitctl has ended.
async fn hear<R: AsyncBufRead + Unpin>(words: &mut Lines<R>) -> Option<Word> {
    let line = words.next_line().await.ok().flatten()?;
    serde_json::from_str(&line).ok()
}

/// Nobody may listen any more.
fn answer(answer: &Answer) {
    use std::io::Write;
    let line = serde_json::to_string(answer).expect("strings and numbers are JSON");
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// The guard's sessions: for each pooler one that waits for the pause, and one that acts meanwhile.
struct Session<'a> {
    orders: &'a Orders,
    pausing: Vec<Console>,
    acting: Vec<Console>,
    database: PgConnection,
}

impl<'a> Session<'a> {
    async fn open(orders: &'a Orders) -> Result<Self> {
        let (mut pausing, mut acting) = (Vec::new(), Vec::new());
        for pooler in &orders.poolers {
            pausing.push(Console::open(pooler).await?);
            acting.push(Console::open(pooler).await?);
        }
        Ok(Self { orders, pausing, acting, database: connect(&orders.url).await? })
    }

    /// Pauses, and waits for what to do then. Returns whether splitctl may go on with this guard.
    async fn pause<R: AsyncBufRead + Unpin>(&mut self, words: &mut Lines<R>) -> bool {
        let [patience, _, last] = limits(self.orders.max_pause);
        let begun = Instant::now();
        let paused = timeout(patience, try_join_all(self.pausing.iter_mut().map(Console::pause))).await;
        match paused {
            Ok(Ok(_)) => answer(&Answer::Paused),
            Ok(Err(error)) => {
                self.resume_all().await;
                answer(&Answer::Failed(format!("{error:#}")));
                return false;
            }
            Err(_) => {
                let held = self.find_holders().await;
                self.resume_all().await;
                answer(&held);
                return false;
            }
        }
        tokio::select! {
            word = hear(words) => match word {
                Some(Word::Turn(side)) => {
                    self.turn(side, last.saturating_sub(begun.elapsed())).await;
                    return true;
                }
                _ => note("warning: splitctl has ended while a pooler was paused: its guard acts alone"),
            },
            () = sleep(last.saturating_sub(begun.elapsed())) => {
                note("warning: splitctl has not answered within --max-pause: its guard acts alone");
            }
        }
        let limit = self.orders.max_pause.saturating_sub(begun.elapsed()).max(LOOK);
        let side = match timeout(limit, self.find_side()).await {
            Ok(Ok(side)) => side,
            // Where the tables have left it, that side refuses; nothing is lost.
            Ok(Err(_)) | Err(_) => self.orders.from,
        };
        self.turn(side, limit).await;
        false
    }

    async fn resume_all(&mut self) {
        let from = self.orders.from;
        super::report(&turn_over(self.consoles(), from, None, Reload::Never).await);
    }

    /// Turns the poolers, and answers. Only a switch has changed an address.
    async fn turn(&mut self, side: Side, limit: Duration) {
        let has_moved = side != self.orders.from;
        let hook = self.orders.hook.as_deref().filter(|_| has_moved).map(|hook| (hook, limit));
        let reload = if has_moved { Reload::Always } else { Reload::Never };
        let failures = turn_over(self.consoles(), side, hook, reload).await;
        answer(&Answer::Turned { side, failures });
    }

    fn consoles(&mut self) -> Vec<(&Pooler, Result<&mut Console, String>)> {
        self.orders.poolers.iter().zip(self.acting.iter_mut().map(Ok)).collect()
    }

    /// Ends the session that holds the locks, whose commit might still come, and reads whether it was done.
    async fn find_side(&mut self) -> Result<Side> {
        let Orders { process, owner_name, generation, from, .. } = self.orders;
        query("select pg_terminate_backend($1)").bind(process).execute(&mut self.database).await?;
        let exists = "select exists (select from pg_stat_activity where pid = $1)";
        while query_scalar(exists).bind(process).fetch_one(&mut self.database).await? {
            sleep(Duration::from_millis(2)).await;
        }
        let newest = switches::find_newest(&mut self.database, owner_name).await?;
        let is_done = newest.is_some_and(|switch| switch.generation > *generation);
        Ok(if is_done { from.other() } else { *from })
    }

    /// The first pooler that did not get all connections back, with the processes at their other ends.
    async fn find_holders(&mut self) -> Answer {
        let listed = join_all(self.acting.iter_mut().map(Console::list_holders)).await;
        let listed = self.orders.poolers.iter().zip(listed.into_iter().map(Result::unwrap_or_default));
        let (pooler, holders) = listed.max_by_key(|(_, holders)| holders.len()).expect("there is a pooler");
        Answer::Held { pooler: pooler.to_string(), holders }
    }
}

const HOLDERS: &str = r"
    select format(
        'process %s (%s, role %s), %s for %s',
        pid,
        coalesce(nullif(application_name, ''), backend_type),
        coalesce(usename, '-'),
        coalesce(state, 'active'),
        (clock_timestamp() - coalesce(xact_start, state_change))::interval(0)
    )
    from pg_stat_activity
    where pid = any ($1)
    order by 1";
