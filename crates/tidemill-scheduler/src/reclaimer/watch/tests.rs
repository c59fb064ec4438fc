use super::*;

const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(250);

/// A watch over one beating set, driven look by look.
struct Scene {
    watch: Watch,
    at: Instant,
    redis_ms: u64,
    beats: HashMap<String, String>,
    holders: BTreeSet<String>,
}

impl Scene {
    fn new() -> Self {
        Self {
            watch: Watch::new(5 * SECOND, STEP),
            at: Instant::now(),
            redis_ms: 1_000_000,
            beats: HashMap::new(),
            holders: BTreeSet::new(),
        }
    }

    fn beat(&mut self, consumer: &str, number: u64) {
        self.beats.insert(consumer.to_owned(), number.to_string());
    }

    /// Lets both clocks go on and looks.
    fn look(&mut self, own: Duration, redis_ms: i64, run_id: Option<&str>) -> (Option<Reset>, Vec<String>) {
        self.at += own;
        self.redis_ms = self.redis_ms.saturating_add_signed(redis_ms);
        let look = Look { at: self.at, redis_ms: self.redis_ms, run_id: run_id.map(ToOwned::to_owned) };
        let (reset, dead) = self.watch.look(look, &self.beats, &self.holders);
        (reset, dead.into_iter().map(|dead| dead.consumer).collect())
    }

    fn step(&mut self) -> Vec<String> {
        let (reset, dead) = self.look(STEP, 250, None);
        assert_eq!(reset, None);
        dead
    }

    /// Steps until somebody is dead; replies after how long.
    fn until_dead(&mut self) -> Duration {
        let start = self.at;
        for _ in 0..100 {
            if !self.step().is_empty() {
                return self.at - start;
            }
        }
        Duration::MAX
    }
}

#[test]
fn who_stands_still_for_the_whole_period_is_dead_and_not_a_look_earlier() {
    let mut scene = Scene::new();
    scene.beat("w1", 7);
    scene.step();
    assert_eq!(scene.until_dead(), 5 * SECOND);
}

#[test]
fn a_slow_but_steady_beat_keeps_alive_for_ever() {
    let mut scene = Scene::new();
    for number in 0..20 {
        scene.beat("w1", number);
        for _ in 0..19 {
            assert!(scene.step().is_empty(), "beat {number}"); // 4.75 s between beats
        }
    }
}

#[test]
fn who_never_beats_but_has_a_consumer_is_dead_after_the_same_period() {
    let mut scene = Scene::new();
    scene.holders.insert("foreign".to_owned());
    scene.step();
    assert_eq!(scene.until_dead(), 5 * SECOND);
    scene.beat("foreign", 1);
    assert!(scene.step().is_empty(), "its first beat makes it alive");
}

#[test]
fn a_jump_of_redis_clock_either_way_gives_everybody_a_full_period() {
    for jump in [30_000, -90_000] {
        let mut scene = Scene::new();
        scene.beat("w1", 7);
        for _ in 0..19 {
            assert!(scene.step().is_empty());
        }
        let (reset, dead) = scene.look(STEP, 250 + jump, None);
        assert_eq!((reset, dead.len()), (Some(Reset::ClockJump), 0), "{jump}");
        assert_eq!(scene.until_dead(), 5 * SECOND);
    }
}

#[test]
fn a_pause_of_our_own_gives_everybody_a_full_period() {
    let mut scene = Scene::new();
    scene.beat("w1", 7);
    scene.step();
    let (reset, dead) = scene.look(60 * SECOND, 60_000, None);
    assert_eq!((reset, dead.len()), (Some(Reset::OwnPause), 0));
    assert_eq!(scene.until_dead(), 5 * SECOND);
}

#[test]
fn a_restart_of_redis_gives_everybody_a_full_period_and_a_reconnect_alone_does_not() {
    let mut scene = Scene::new();
    scene.beat("w1", 7);
    assert_eq!(scene.look(STEP, 250, Some("a")).0, None, "the first server is no restart");
    for _ in 0..10 {
        scene.step();
    }
    assert_eq!(scene.look(STEP, 250, Some("a")).0, None, "a reconnect to the same one");
    let (reset, _) = scene.look(STEP, 250, Some("b"));
    assert_eq!(reset, Some(Reset::Restart));
    assert_eq!(scene.until_dead(), 5 * SECOND);
}

#[test]
fn small_unevenness_of_the_clocks_is_no_jump() {
    let mut scene = Scene::new();
    scene.beat("w1", 7);
    scene.step();
    assert_eq!(scene.look(900 * SECOND / 1000, 100, None).0, None);
    assert_eq!(scene.look(STEP, 1_050, None).0, None);
}

#[test]
fn a_dead_one_is_told_again_until_it_is_forgotten() {
    let mut scene = Scene::new();
    scene.beat("w1", 7);
    scene.step();
    scene.until_dead();
    assert_eq!(scene.step(), ["w1"]);
    scene.watch.forget("w1");
    assert!(scene.step().is_empty());
}
