//! What goes wrong, as a seed has it.

use std::time::Duration;

use logmill_log::sim::SimRandom;
use logmill_tests::history::{Cut as CutOff, History};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::LIMIT;
use crate::proxy::{Cut, Pace, Proxy, Way, Weather};
use crate::server::Server;

/// How long a cut waits for something to cut, and a duplication for a connection that begins.
const CUT_LIMIT: Duration = Duration::from_millis(500);
/// How much later at least something is said for the second time: see [`Twin`](crate::twin::Twin).
const LAG: Duration = Duration::from_millis(50);

/// One of them.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// SIGKILL, and a start after a while.
    Kill { away: Duration },
    /// SIGKILL, a start that is killed too, and another one.
    KillTwice { after: Duration },
    /// SIGTERM, and a start.
    Stop,
    /// SIGSTOP, and SIGCONT after a while.
    Pause(Duration),
    /// Something on the way, for a while; of one client or of all.
    OnTheWay { name: &'static str, weather: Weather, time: Duration },
    /// Clients and node are cut off from each other, and the node is killed meanwhile: what was on the way
    /// arrives at the next one, or never.
    KillBehindTheWall { time: Duration },
}

/// Makes faults one after the other, each after so many more answers as the seed says: whatever happened
/// before, clients get on.
pub(crate) struct Faults<'a> {
    pub(crate) random: SimRandom,
    pub(crate) history: &'a History,
    pub(crate) server: &'a mut Server,
    pub(crate) proxies: &'a [Proxy],
    /// How many records were acknowledged so far.
    pub(crate) acknowledged: watch::Receiver<u64>,
    /// The longest time that a fault holds somebody up.
    pub(crate) longest: Duration,
}

impl Faults<'_> {
    pub(crate) async fn run(mut self, count: u32) {
        for _ in 0..count {
            self.progress().await;
            let fault = self.draw();
            self.make(fault).await;
        }
        self.progress().await;
    }

    async fn progress(&mut self) {
        let more = 20 + self.random.below(400);
        let enough = *self.acknowledged.borrow_and_update() + more;
        let waiting = self.acknowledged.wait_for(|count| *count >= enough);
        timeout(LIMIT, waiting).await.expect("the node goes on acknowledging").unwrap();
    }

    fn draw(&self) -> Fault {
        match self.random.below(20) {
            0..=3 => Fault::Kill { away: self.time() / 4 },
            4 => Fault::Kill { away: Duration::ZERO },
            5 => Fault::KillBehindTheWall { time: self.time() },
            6 => Fault::KillTwice { after: Duration::from_millis(self.random.below(100)) },
            7 | 8 => Fault::Stop,
            9 | 10 => Fault::Pause(self.time()),
            _ => self.draw_on_the_way(),
        }
    }

    fn draw_on_the_way(&self) -> Fault {
        let time = self.time();
        let slow = Pace::Slow(time / 40);
        let few = usize::try_from(self.random.below(400)).unwrap();
        let (free, held) = (Weather::default(), Pace::Held);
        let (name, weather) = match self.random.below(12) {
            0 => ("connections cut", Weather::cut(Cut::Now)),
            1 => ("requests cut in mid-frame", Weather::cut(Cut::InData(Way::ToNode, 1 + few))),
            2 => ("replies cut in mid-frame", Weather::cut(Cut::InData(Way::ToClient, 1 + few / 10))),
            3 | 4 => ("replies cut", Weather::cut(Cut::InData(Way::ToClient, 0))),
            5 => ("bytes delayed", Weather { to_node: slow, to_client: slow, ..free }),
            6 => ("replies delayed", Weather { to_client: slow, ..free }),
            7 => ("connections held", Weather::HELD),
            8 => ("requests held", Weather { to_node: held, ..free }),
            9 | 10 => ("connections duplicated", Weather::duplicate(LAG + time / 8)),
            _ => ("replies held", Weather { to_client: held, ..free }),
        };
        Fault::OnTheWay { name, weather, time }
    }

    /// Most faults are short, so that there can be many.
    fn time(&self) -> Duration {
        let short = self.longest / 4;
        let most = if self.random.one_in(3) { self.longest } else { short };
        Duration::from_millis(self.random.below(u64::try_from(most.as_millis()).unwrap()))
    }

    async fn make(&mut self, fault: Fault) {
        match fault {
            Fault::Kill { away } => {
                self.kill();
                sleep(away).await;
                self.server.resume().await;
            }
            Fault::KillTwice { after } => {
                self.kill();
                self.history.cut(&CutOff::Kill);
                self.server.resume_and_kill(after).await;
                self.server.resume().await;
            }
            Fault::Stop => {
                self.history.fault("node stopped");
                assert_eq!(self.server.terminate().await, 0);
                self.server.resume().await;
            }
            Fault::Pause(time) => {
                self.history.fault("node paused");
                self.server.pause();
                sleep(time).await;
                self.server.go_on();
            }
            Fault::OnTheWay { name, weather, time } => self.change_weather(name, weather, time).await,
            Fault::KillBehindTheWall { time } => {
                self.history.fault("connections held");
                self.proxies.iter().for_each(|proxy| proxy.set(Weather::HELD));
                sleep(time).await;
                self.kill();
                self.server.resume().await;
                self.clear_up();
            }
        }
    }

    fn kill(&mut self) {
        self.history.cut(&CutOff::Kill);
        self.server.kill();
    }

    async fn change_weather(&self, name: &'static str, weather: Weather, time: Duration) {
        let chosen = usize::try_from(self.random.below(2 * self.proxies.len() as u64)).unwrap();
        let proxies = self.proxies.get(chosen..=chosen).unwrap_or(self.proxies);
        if weather.cut.is_some() {
            self.count(name, proxies, Proxy::cuts, weather).await;
        } else if weather.duplicate.is_some() {
            // From their first bytes on, so clients have to connect again.
            self.count("connections cut", proxies, Proxy::cuts, Weather::cut(Cut::Now)).await;
            self.count(name, proxies, Proxy::duplicated, weather).await;
            sleep(time).await;
        } else {
            self.history.fault(name);
            proxies.iter().for_each(|proxy| proxy.set(weather));
            sleep(time).await;
            // What was held comes to nothing, as often as not.
            if weather.to_node == Pace::Held && self.random.one_in(2) {
                let cut = Weather { cut: Some(Cut::Now), ..weather };
                self.count("connections cut", proxies, Proxy::cuts, cut).await;
            }
        }
        self.clear_up();
    }

    /// Waits until the weather has met a connection as `met` counts them, or there was none for a while.
    async fn count(&self, name: &'static str, proxies: &[Proxy], met: fn(&Proxy) -> u64, weather: Weather) {
        let all = || proxies.iter().map(met).sum::<u64>();
        let before = all();
        proxies.iter().for_each(|proxy| proxy.set(weather));
        let meeting = async {
            while all() == before {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = timeout(CUT_LIMIT, meeting).await;
        (before..all()).for_each(|_| self.history.fault(name));
    }

    fn clear_up(&self) {
        self.proxies.iter().for_each(|proxy| proxy.set(Weather::default()));
    }
}
