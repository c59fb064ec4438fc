//! The cache of a service's answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tidemill_protocol::Payload;
use tidemill_store::cache::{
    Answers, Asking, Bounds, Cached, Digest, Era, Found, Mode, Order, Put, ServiceCache, Stored,
};
use tidemill_store::{Error, Fault, Settings, Store};
use tidemill_testkit::wait_for;

use crate::place::Place;
use crate::pool::{PATIENCE, Pool};

const LEASE: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);
const ROOMY: Bounds = Bounds { max_entries: 1000, max_bytes: 1 << 26, order: Order::Lru };
const KEYS: &str = include_str!("../../src/cache/keys.rs");
const PAGE: &str = include_str!("../../../../docs/redis-keys.md");

fn digest(number: u32) -> Digest {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Digest(bytes)
}

fn cache(pool: &Pool) -> ServiceCache {
    pool.store.cache("openai").unwrap()
}

async fn ask(cache: &ServiceCache, filler: &str, order: Order, looks: &[(Digest, Mode)]) -> Answers {
    let asking = Asking { filler, lease: LEASE, order, renew: &[], looks };
    cache.get(&asking).await.unwrap()
}

async fn look(cache: &ServiceCache, filler: &str, number: u32) -> Found {
    ask(cache, filler, Order::Lru, &[(digest(number), Mode::Fresh)]).await.found.remove(0)
}

async fn kept(cache: &ServiceCache, number: u32) -> Found {
    ask(cache, "w", Order::Lru, &[(digest(number), Mode::Kept)]).await.found.remove(0)
}

async fn era(cache: &ServiceCache) -> Era {
    ask(cache, "w", Order::Lru, &[]).await.era
}

fn value(text: &str) -> Bytes {
    Cached::Output(Payload::json(text.to_owned())).encode()
}

async fn put_for(cache: &ServiceCache, number: u32, text: &str, ttl: Duration, stale: Duration) -> Stored {
    let put = Put { digest: digest(number), era: era(cache).await, ttl, stale, value: value(text) };
    cache.put(&ROOMY, &[put]).await.unwrap().stored[0]
}

async fn put(cache: &ServiceCache, bounds: &Bounds, number: u32, text: &str) -> (u64, u64, u64, Stored) {
    let era = era(cache).await;
    let put = Put { digest: digest(number), era, ttl: MINUTE, stale: Duration::ZERO, value: value(text) };
    let reply = cache.put(bounds, &[put]).await.unwrap();
    (reply.fullness.entries, reply.fullness.bytes, reply.evicted, reply.stored[0])
}

fn is_hit(found: &Found, text: &str) -> bool {
    matches!(found, Found::Hit(bytes, _) if *bytes == value(text))
}

pub(crate) async fn of_all_who_miss_at_once_one_may_fill(pool: &Pool) {
    let stores = join_all((0..4).map(|_| async {
        let settings = Settings { url: pool.place.url(), ..Settings::default() };
        let namespace = pool.keys().prefix().split(':').next().unwrap();
        Store::new(&settings, namespace, 1).unwrap().cache("openai").unwrap()
    }))
    .await;
    let names: Vec<String> = (0..200).map(|n| format!("w{n}")).collect();
    let looks = names.iter().enumerate().map(|(n, name)| look(&stores[n % 4], name, 1));
    let found = join_all(looks).await;
    assert_eq!(found.iter().filter(|found| **found == Found::Fill).count(), 1);
    assert_eq!(found.iter().filter(|found| matches!(found, Found::Wait(_))).count(), 199);
    let filler = &names[found.iter().position(|found| *found == Found::Fill).unwrap()];
    pool.interruption().await;
    for store in &stores {
        let answer = async || store.fullness().await.map_err(|error| error.to_string());
        wait_for(PATIENCE, "each store to be connected again", answer).await.unwrap();
    }
    assert_eq!(look(&stores[1], filler, 1).await, Found::Fill, "it may ask again: the reply could be lost");
    assert_eq!(put_for(&stores[2], 1, "{\"a\":1}", MINUTE, MINUTE).await, Stored::Yes);
    for store in &stores {
        assert!(is_hit(&look(store, "late", 1).await, "{\"a\":1}"));
    }
}

pub(crate) async fn a_fill_that_came_to_nothing_passes_on_and_a_renewed_one_does_not(pool: &Pool) {
    let cache = cache(pool);
    assert_eq!(look(&cache, "a", 1).await, Found::Fill);
    assert!(matches!(look(&cache, "b", 1).await, Found::Wait(left) if left <= LEASE));
    assert_eq!(cache.give_up("b", &[digest(1)]).await.unwrap(), [false], "not its to give up");
    assert_eq!(cache.give_up("a", &[digest(1), digest(2)]).await.unwrap(), [true, false]);
    pool.interruption().await;

    let asking = |filler, renew| Asking {
        filler,
        lease: Duration::from_millis(400),
        order: Order::Lru,
        renew,
        looks: &[(Digest([1; 32]), Mode::Fresh)],
    };
    assert_eq!(cache.get(&asking("b", &[])).await.unwrap().found, [Found::Fill]);
    let until = pool.home().now_ms().await.unwrap() + 1000;
    while pool.home().now_ms().await.unwrap() < until {
        let renewed = Asking { looks: &[], ..asking("b", &[Digest([1; 32])]) };
        cache.get(&renewed).await.unwrap();
        let found = cache.get(&asking("c", &[])).await.unwrap().found;
        assert!(matches!(found[..], [Found::Wait(_)]), "{found:?} although it is renewed");
    }
    let passed = async || match cache.get(&asking("c", &[])).await.unwrap().found.remove(0) {
        Found::Fill => Ok(()),
        other => Err(format!("{other:?}")),
    };
    wait_for(PATIENCE, "the lease of a dead filler to pass on", passed).await.unwrap();
    assert_eq!(cache.give_up("b", &[Digest([1; 32])]).await.unwrap(), [false], "b lost it to c");
}

pub(crate) async fn an_answer_is_fresh_then_kept_for_fallback_then_gone(pool: &Pool) {
    let cache = cache(pool);
    let (ttl, stale) = (Duration::from_millis(100), Duration::from_millis(400));
    assert_eq!(put_for(&cache, 1, "1", ttl, stale).await, Stored::Yes);
    pool.passes(pool.home().now_ms().await.unwrap() + 100).await;
    assert_eq!(look(&cache, "a", 1).await, Found::Fill, "what is stale is fetched again");
    assert!(matches!(kept(&cache, 1).await, Found::Stale(bytes, _) if bytes == value("1")));
    pool.passes(pool.home().now_ms().await.unwrap() + 400).await;
    assert_eq!(kept(&cache, 1).await, Found::Nothing);
    let gone =
        async || match pool.cli(&["EXISTS", &cache.keys().values(), &cache.keys().order()]).await.as_str() {
            "0" => Ok(()),
            left => Err(left.to_owned()),
        };
    wait_for(PATIENCE, "the keys to go with their last value", gone).await.unwrap();
    assert_eq!(kept(&cache, 2).await, Found::Nothing, "nothing was ever stored, and nobody asked to fill");
    assert_eq!(look(&cache, "b", 2).await, Found::Fill);
}

pub(crate) async fn clearing_also_holds_for_calls_under_way(pool: &Pool) {
    let cache = cache(pool);
    let before = era(&cache).await;
    put(&cache, &ROOMY, 1, "1").await;
    assert_eq!(look(&cache, "a", 2).await, Found::Fill);
    assert_eq!(cache.clear().await.unwrap(), 1);
    assert_eq!(cache.clear().await.unwrap(), 0);
    pool.interruption().await;
    let late = Put { digest: digest(2), era: before, ttl: MINUTE, stale: MINUTE, value: value("2") };
    assert_eq!(cache.put(&ROOMY, &[late]).await.unwrap().stored, [Stored::Outdated]);
    assert_eq!(look(&cache, "b", 1).await, Found::Fill);
    assert_eq!(look(&cache, "b", 2).await, Found::Fill);
    assert_eq!(put(&cache, &ROOMY, 2, "2").await.3, Stored::Yes);
    assert!(is_hit(&look(&cache, "c", 2).await, "2"));
}

#[tokio::test]
async fn the_least_recently_used_leaves_first() {
    let pool = Pool::start().await;
    let (cache, bounds) = (cache(&pool), Bounds { max_entries: 10, ..ROOMY });
    for number in 0..10 {
        assert_eq!(put(&cache, &bounds, number, "1").await.2, 0);
    }
    assert!(is_hit(&look(&cache, "a", 0).await, "1"));
    for number in 10..14 {
        let (entries, _, evicted, stored) = put(&cache, &bounds, number, "1").await;
        assert_eq!((entries, evicted, stored), (10, 1, Stored::Yes));
    }
    for gone in 1..5 {
        assert_eq!(kept(&cache, gone).await, Found::Nothing, "{gone}");
    }
    for there in [0, 5, 9, 10, 13] {
        assert!(is_hit(&look(&cache, "a", there).await, "1"), "{there}");
    }
}

#[tokio::test]
async fn the_least_frequently_used_leaves_first_and_what_once_was_popular_too_in_the_end() {
    let pool = Pool::start().await;
    let cache = cache(&pool);
    let bounds = Bounds { max_entries: 10, order: Order::Lfu, ..ROOMY };
    for number in 0..10 {
        put(&cache, &bounds, number, "1").await;
    }
    for used in 0..5 {
        for _ in 0..3 {
            ask(&cache, "a", Order::Lfu, &[(digest(used), Mode::Fresh)]).await;
        }
    }
    for number in 10..30 {
        assert_eq!(put(&cache, &bounds, number, "1").await.2, 1);
    }
    for used in 0..5 {
        assert!(is_hit(&look(&cache, "a", used).await, "1"), "{used} was used four times");
    }
    // the first of the popular ones as it would stand had it not been used for three hours
    let order = cache.keys().order();
    let age = "local r = redis.call('ZREVRANGE', KEYS[1], 0, 0); return redis.call('ZINCRBY', KEYS[1], -3 * 3600000000, r[1])";
    pool.cli(&["EVAL", age, "1", &order]).await;
    put(&cache, &bounds, 30, "1").await;
    let left = join_all((0..5).map(|used| kept(&cache, used))).await;
    assert_eq!(left.iter().filter(|found| **found == Found::Nothing).count(), 1, "{left:?}");
}

#[tokio::test]
async fn bytes_are_bounded_and_mean_memory() {
    let pool = Pool::start().await;
    let (cache, mut random) = (cache(&pool), 1_u64);
    let bounds = Bounds { max_bytes: 500_000, ..ROOMY };
    let mut most = 0;
    for number in 0..2000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let text = format!("\"{}\"", "0123456789abcdef".repeat((random >> 60) as usize * 4));
        let (entries, bytes, _, stored) = put(&cache, &bounds, number, &text).await;
        assert!(bytes <= 500_000 && stored == Stored::Yes, "{bytes} bytes of {entries}");
        most = most.max(bytes);
    }
    assert!(most > 495_000, "only {most} bytes were used");
    let keys = cache.keys();
    let mut memory = 0;
    for key in [keys.values(), keys.order(), keys.expiry(), keys.totals()] {
        memory += pool.cli(&["MEMORY", "USAGE", &key, "SAMPLES", "0"]).await.parse::<u64>().unwrap();
    }
    println!("{most} bytes counted, {memory} bytes of memory");
    assert!((most / 2..most * 5 / 4).contains(&memory), "{most} bytes counted, {memory} in memory");
    let larger = "9".repeat(600_000);
    let incompressible = Put {
        digest: digest(9999),
        era: era(&cache).await,
        ttl: MINUTE,
        stale: MINUTE,
        value: Bytes::from(larger),
    };
    let before = cache.fullness().await.unwrap();
    let reply = cache.put(&bounds, &[incompressible]).await.unwrap();
    assert_eq!((reply.stored[0], reply.evicted), (Stored::NoRoom, 0), "it never fits: nothing goes for it");
    assert_eq!(reply.fullness, before);
}

#[tokio::test]
async fn one_call_takes_out_a_bounded_number_and_never_exceeds_the_bound() {
    let pool = Pool::start().await;
    let cache = cache(&pool);
    for number in 0..900 {
        put(&cache, &ROOMY, number, "1").await;
    }
    let narrow = Bounds { max_entries: 10, ..ROOMY };
    let mut answers = Vec::new();
    for number in 1000..1005 {
        let (entries, _, evicted, stored) = put(&cache, &narrow, number, "1").await;
        answers.push((entries, evicted, stored == Stored::Yes));
    }
    let wanted = [(700, 200, false), (500, 200, false), (300, 200, false), (100, 200, false), (10, 91, true)];
    assert_eq!(answers, wanted);
}

#[tokio::test]
async fn what_has_expired_makes_room_before_anything_is_evicted() {
    let pool = Pool::start().await;
    let (cache, bounds) = (cache(&pool), Bounds { max_entries: 3, ..ROOMY });
    put(&cache, &bounds, 1, "1").await;
    put_for(&cache, 2, "2", Duration::from_millis(1), Duration::ZERO).await;
    put(&cache, &bounds, 3, "3").await;
    pool.passes(pool.home().now_ms().await.unwrap() + 2).await;
    let (entries, _, evicted, _) = put(&cache, &bounds, 4, "4").await;
    assert_eq!((entries, evicted), (3, 0));
    assert!(is_hit(&look(&cache, "a", 1).await, "1"));
}

#[tokio::test]
async fn a_value_that_is_stored_again_counts_once() {
    let pool = Pool::start().await;
    let (cache, bounds) = (cache(&pool), Bounds { max_entries: 1, ..ROOMY });
    let (_, first, ..) = put(&cache, &bounds, 1, "12").await;
    for _ in 0..3 {
        assert_eq!(put(&cache, &bounds, 1, "34").await, (1, first, 0, Stored::Yes));
    }
    assert!(is_hit(&look(&cache, "a", 1).await, "34"));
}

#[tokio::test]
async fn what_somebody_else_wrote_is_a_miss() {
    let pool = Pool::start().await;
    let cache = cache(&pool);
    put(&cache, &ROOMY, 1, "1").await;
    let values = cache.keys().values();
    for poison in ["", "x", "9999999999999999", &"9".repeat(32), &format!("{}x", " ".repeat(32)), "null"] {
        // the digest is no text: the one field is found by the server itself
        let script =
            "local f = redis.call('HKEYS', KEYS[1]); return redis.call('HSET', KEYS[1], f[1], ARGV[1])";
        pool.cli(&["EVAL", script, "1", &values, poison]).await;
        assert_eq!(look(&cache, "a", 1).await, Found::Fill, "{poison:?}");
        assert_eq!(kept(&cache, 1).await, Found::Nothing, "{poison:?}");
        assert_eq!(put(&cache, &ROOMY, 1, "1").await.3, Stored::Yes, "it is overwritten");
    }
    assert!(is_hit(&look(&cache, "a", 1).await, "1"));
    let found = ask(&cache, "a", Order::Lru, &[(digest(1), Mode::Distrust)]).await.found;
    assert_eq!(found, [Found::Fill], "who could not read it may fill it anew");
}

#[tokio::test]
async fn parts_that_do_not_match_begin_anew_and_a_foreign_key_is_refused_before_any_write() {
    let pool = Pool::start().await;
    let cache = cache(&pool);
    for number in 0..5 {
        put(&cache, &ROOMY, number, "1").await;
    }
    pool.cli(&["DEL", &cache.keys().order()]).await;
    assert_eq!(put(&cache, &ROOMY, 9, "1").await.0, 1, "the rest could never have been evicted");
    let one = cache.fullness().await.unwrap();
    pool.cli(&["DEL", &cache.keys().totals()]).await;
    pool.cli(&["DEL", &cache.keys().values()]).await;
    put(&cache, &ROOMY, 9, "1").await;
    assert_eq!(cache.fullness().await.unwrap(), one);

    for key in [cache.keys().values(), cache.keys().order(), cache.keys().fillers()] {
        cache.clear().await.unwrap();
        pool.cli(&["SET", &key, "poison"]).await;
        let asking = Asking {
            filler: "a",
            lease: LEASE,
            order: Order::Lru,
            renew: &[],
            looks: &[(digest(1), Mode::Fresh)],
        };
        let error = cache.get(&asking).await.unwrap_err();
        assert!(matches!(error, Error::Redis { fault: Fault::WrongType, .. }), "{error}");
        assert_eq!(pool.cli(&["EXISTS", &cache.keys().fills()]).await, "0", "{key}");
    }
    cache.clear().await.unwrap();
    assert_eq!(look(&cache, "a", 1).await, Found::Fill, "clearing mends it");
}

#[tokio::test]
async fn a_reply_stays_small_however_much_is_asked_for() {
    let pool = Pool::start().await;
    let cache = cache(&pool);
    let era = era(&cache).await;
    for number in 0..10 {
        let value = Bytes::from(vec![b'x'; 1 << 20]);
        let put = Put { digest: digest(number), era: era.clone(), ttl: MINUTE, stale: MINUTE, value };
        assert_eq!(cache.put(&ROOMY, &[put]).await.unwrap().stored, [Stored::Yes]);
    }
    let looks: Vec<_> = (0..10).map(|number| (digest(number), Mode::Fresh)).collect();
    let found = ask(&cache, "a", Order::Lru, &looks).await.found;
    let hits = found.iter().filter(|found| matches!(found, Found::Hit(..))).count();
    assert_eq!((hits, found.iter().filter(|found| **found == Found::Again).count()), (4, 6));
}

#[tokio::test]
async fn at_its_memory_bound_redis_still_answers_and_stores_nothing() {
    let pool = Pool::start().await;
    let cache = cache(&pool);
    put(&cache, &ROOMY, 1, "1").await;
    let era = era(&cache).await;
    pool.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert!(is_hit(&look(&cache, "a", 1).await, "1"));
    assert_eq!(look(&cache, "a", 2).await, Found::Fill);
    let put = Put { digest: digest(2), era, ttl: MINUTE, stale: MINUTE, value: value("2") };
    let error = cache.put(&ROOMY, &[put]).await.unwrap_err();
    assert_eq!(error.fault(), Some(Fault::OutOfMemory));
    assert_eq!(cache.give_up("a", &[digest(2)]).await.unwrap(), [true]);
    assert_eq!(cache.clear().await.unwrap(), 1, "and clearing gives memory back");
}

#[tokio::test]
async fn each_service_has_a_cache_of_its_own_on_a_cluster_too() {
    let pool = Pool::on(Arc::new(Place::cluster().await), "tm", 8).await;
    for service in ["openai", "anthropic", "shop", "mail", "search"] {
        let cache = pool.store.cache(service).unwrap();
        assert_eq!(look(&cache, service, 1).await, Found::Fill);
        let text = format!("\"{service}\"");
        assert_eq!(put(&cache, &ROOMY, 1, &text).await.3, Stored::Yes);
        assert!(is_hit(&look(&cache, "w", 1).await, &text));
        assert_eq!(cache.give_up("w", &[digest(1)]).await.unwrap(), [false]);
    }
    for service in ["openai", "mail"] {
        assert_eq!(pool.store.cache(service).unwrap().clear().await.unwrap(), 1);
    }
    assert_eq!(pool.store.cache("shop").unwrap().fullness().await.unwrap().entries, 1);
}

#[test]
fn every_key_of_a_cache_is_on_its_page_with_its_type() {
    let (_, section) = PAGE.split_once("## Keys of a service's cache").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let mut keys = 0;
    for part in KEYS.split("    /// ").skip(1) {
        let Some((_, name)) = part.split_once("self.key(\"") else { continue };
        let (kind, name) = (part.split(':').next().unwrap(), name.split('"').next().unwrap());
        let row = format!("| `{name}` | {} |", kind.to_lowercase());
        assert!(rows.iter().any(|line| line.starts_with(&row)), "docs/redis-keys.md lacks: {row}");
        keys += 1;
    }
    assert_eq!(keys, rows.len(), "the page has keys that keys.rs has not");
    assert_eq!(keys, 6);
}
