//! The clients of the workload `latency` of `benches/proxy/run`: requests at a constant rate.
//!
//! `paced ADDRESS RATE SECONDS`, then a line `RESULT REQUESTS ERRORS P50 P99 P99.9 MAX LAG`, times in
//! microseconds. Request *n* is due *n* / RATE seconds after the start, and its time runs from that moment to
//! the end of its response. A request that finds all connections busy waits, and the wait counts: a proxy that
//! stops for a while delays all requests that were due meanwhile, not only those it had accepted ("coordinated
//! omission" is the name of the mistake to count only the latter). All times are kept, so the percentiles are
//! exact. LAG is the 99th percentile of what these clients add themselves: the time by which a request was
//! sent late although a connection was free.

#![expect(clippy::expect_used, reason = "a slip ends the benchmark")]
#![expect(clippy::print_stdout, reason = "that is where the result goes")]
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

const CONNECTIONS: usize = 64;

/// As many paths as `requests.lua` has, in the same order.
const KEYS: u64 = 10_000;

/// Prime to [`KEYS`].
const STRIDE: u64 = 7_919;

/// The end of the one response there is.
const BODY: &[u8] = b"ok\n";

const NANOS: u64 = 1_000_000_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("ADDRESS RATE SECONDS");
    let address: SocketAddr = next().parse().expect("an address");
    let rate: u64 = next().parse().expect("requests per second");
    let seconds: u64 = next().parse().expect("seconds");
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().expect("a runtime");
    let mut measured = runtime.block_on(async {
        let schedule = Schedule::new(rate, rate * seconds).expect("a timer");
        load(address, schedule).await
    });
    println!("{}", measured.result());
}

/// Sends all requests of the schedule, over all connections.
async fn load(address: SocketAddr, schedule: Schedule) -> Measured {
    let schedule = Arc::new(Mutex::new(schedule));
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let stream = connect(address).await.expect("a connection");
        clients.spawn(client(address, stream, Arc::clone(&schedule)));
    }
    let mut all = Measured::default();
    for measured in clients.join_all().await {
        all.add(measured);
    }
    all
}

/// One connection: it takes the next request that is due whenever it is free.
async fn client(
    address: SocketAddr,
    mut stream: TcpStream,
    schedule: Arc<Mutex<Schedule>>,
) -> Measured {
    let mut measured = Measured::default();
    loop {
        let free = Instant::now();
        // The mutex is fair, so the connection that has been free the longest waits for the timer.
        let next = schedule.lock().await.next().await;
        let Some((number, due)) = next.expect("the timer works") else {
            return measured;
        };
        measured.lags.push(due.max(free).elapsed());
        if exchange(&mut stream, number).await.is_ok() {
            measured.times.push(due.elapsed());
        } else {
            measured.errors += 1;
            stream = connect(address).await.expect("a connection");
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One request and its response.
async fn exchange(stream: &mut TcpStream, number: u64) -> io::Result<()> {
    let key = number * STRIDE % KEYS;
    let request = format!("GET /key/{key} HTTP/1.1\r\nHost: bench.test\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = [0; 4096];
    let mut length = 0;
    while !response
        .get(..length)
        .is_some_and(|received| received.ends_with(BODY))
    {
        let rest = response.get_mut(length..).unwrap_or_default();
        match stream.read(rest).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => length += count,
        }
    }
    if response.starts_with(b"HTTP/1.1 200") {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// The moments at which requests are due.
struct Schedule {
    timer: AsyncFd<OwnedFd>,
    start: Instant,
    rate: u64,
    next: u64,
    count: u64,
}

impl Schedule {
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe; the timer is owned here and closed with it"
    )]
    fn new(rate: u64, count: u64) -> io::Result<Self> {
        // Tokio's own timer counts in milliseconds, in which a proxy answers several requests.
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self {
            timer: AsyncFd::new(timer)?,
            start: Instant::now(),
            rate,
            next: 0,
            count,
        })
    }

    /// Waits until the next request is due; its number and that moment. `None`: none is left.
    async fn next(&mut self) -> io::Result<Option<(u64, Instant)>> {
        let number = self.next;
        if number == self.count {
            return Ok(None);
        }
        self.next += 1;
        let due = self.start + Duration::from_nanos(number * NANOS / self.rate);
        self.sleep_until(due).await?;
        Ok(Some((number, due)))
    }

    async fn sleep_until(&self, due: Instant) -> io::Result<()> {
        let wait = due.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: wait.try_into().map_err(io::Error::other)?,
        };
        // Setting it also makes it unreadable.
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.timer.readable().await?;
            let mut expirations = [0; 8];
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut expirations)?));
            match read {
                Ok(result) => return result.map(|_| ()),
                Err(_would_block) => {}
            }
        }
    }
}

#[derive(Default)]
struct Measured {
    times: Vec<Duration>,
    lags: Vec<Duration>,
    errors: usize,
}

impl Measured {
    fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.lags.extend(other.lags);
        self.errors += other.errors;
    }

    fn result(&mut self) -> String {
        self.times.sort_unstable();
        self.lags.sort_unstable();
        let (requests, errors) = (self.times.len(), self.errors);
        let times = [500, 990, 999, 1000].map(|per_mille| percentile(&self.times, per_mille));
        let [p50, p99, p999, max] = times;
        let lag = percentile(&self.lags, 990);
        format!("RESULT {requests} {errors} {p50} {p99} {p999} {max} {lag}")
    }
}

/// The smallest of the sorted times that at least `per_mille` of them do not exceed; µs.
fn percentile(sorted: &[Duration], per_mille: usize) -> u128 {
    let rank = (sorted.len() * per_mille).div_ceil(1000);
    sorted
        .get(rank.saturating_sub(1))
        .map_or(0, Duration::as_micros)
}
