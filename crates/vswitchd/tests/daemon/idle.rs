//! What an idle switch costs, and how threads are told to sleep.

use crate::bench::{DEADLINE, Daemon, Patience, wait_for};
use std::time::{Duration, Instant};
use virtio_driver::payload::Flow;
use virtio_driver::{Config, Driver, SocketMode};

/// Nanoseconds for which the daemon's threads whose names begin with `prefix` have run.
fn run_time(d: &Daemon, prefix: &str) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", d.pid())).expect("it runs").flatten();
    let read = |task: &std::fs::DirEntry, file| {
        std::fs::read_to_string(task.path().join(file)).unwrap_or_default()
    };
    let of_prefix = tasks.filter(|t| read(t, "comm").starts_with(prefix));
    let run = |task| {
        let text = read(&task, "schedstat");
        text.split(' ')
            .next()
            .and_then(|n| n.parse().ok())
            .map_or(Duration::ZERO, Duration::from_nanos)
    };
    of_prefix.map(run).sum()
}

/// The share of a core that threads of this name take, over two seconds.
fn share(d: &Daemon, prefix: &str) -> f64 {
    let (start, before) = (Instant::now(), run_time(d, prefix));
    std::thread::sleep(Duration::from_secs(2));
    let ran = run_time(d, prefix).checked_sub(before).expect("time goes on");
    ran.as_secs_f64() / start.elapsed().as_secs_f64()
}

/// A switch with two guests that have spoken to each other.
fn two_guests() -> (Daemon, [Driver; 2]) {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    let guests = ["a", "b"].map(|name| {
        d.vsctl(&format!("add-port br0 {name} -- set Interface {name} type=dpdkvhostuser"));
        let guest = Driver::connect(Config::new(SocketMode::Connect(d.rundir().join(name))));
        d.wait_column(name, "link_state", "up");
        guest.expect("the switch answers")
    });
    (d, guests)
}

/// A frame from guest 1 to guest 2 and one back; how long that took.
fn round_trip([a, b]: &mut [Driver; 2], sequence: u64) -> Duration {
    let start = Instant::now();
    pass((a, 1), (b, 2), sequence);
    pass((b, 2), (a, 1), sequence);
    start.elapsed()
}

fn pass(from: (&mut Driver, u8), to: (&mut Driver, u8), sequence: u64) {
    let mut frame = Vec::new();
    Flow::between(1, from.1, to.1).frame(sequence, 100, &mut frame);
    assert_eq!(from.0.tx(0, &[&frame]).expect("sends"), 1);
    let mut patience = Patience::new();
    while to.0.rx(0, 1, |_, _| {}).expect("receives") == 0 {
        assert!(patience.waited() < DEADLINE, "the frame does not come");
    }
    from.0.reclaim(0).expect("reclaims");
}

#[test]
fn an_idle_switch_takes_less_than_a_hundredth_of_a_core() {
    let (d, mut guests) = two_guests();
    round_trip(&mut guests, 0);
    let sleeps = || -> u64 {
        let n = d.appctl("coverage/read-counter datapath_sleep_iterations");
        n.trim().parse().expect("a number")
    };
    let asleep = || {
        let before = sleeps();
        std::thread::sleep(Duration::from_millis(250));
        (sleeps() - before >= 1).then_some(())
    };
    wait_for("an idle thread", asleep);
    let (idle, all) = (share(&d, "pmd-"), share(&d, ""));
    println!(
        "two guests, idle: PMD thread {:.3} %, all threads {:.3} % of a core",
        100.0 * idle,
        100.0 * all
    );
    assert!(idle < 0.01, "{:.2} % of a core", 100.0 * idle);
    for n in 1..4 {
        let time = round_trip(&mut guests, n);
        println!("round trip after the wait: {time:?}");
        wait_for("an idle thread", asleep);
    }
    // Guests that are gone, and ports whose guests never came, cost nothing either.
    drop(guests);
    d.vsctl("add-port br0 c -- set Interface c type=dpdkvhostuser");
    d.wait_column("a", "link_state", "down");
    wait_for("an idle thread", asleep);
    let idle = share(&d, "pmd-");
    assert!(idle < 0.01, "{:.2} % of a core", 100.0 * idle);
    d.vsctl("set Open_vSwitch . other_config:pmd-idle-wait=0");
    wait_for("polling", || {
        let before = sleeps();
        std::thread::sleep(Duration::from_millis(250));
        (sleeps() == before).then_some(())
    });
}

/// The text is that of OVS 3.2 and later (`pmd_info_show_sleep` there); 3.1 has no such command.
#[test]
fn sleeping_by_load_is_set_and_shown_as_in_ovs() {
    let d = Daemon::start();
    let show = || d.appctl("dpif-netdev/pmd-sleep-show");
    let text = |default: u64, own: u64| {
        format!(
            "Default max sleep: {default:4} us\npmd thread numa_id 0 core_id 0:\n  max sleep: {own:4} us\n"
        )
    };
    assert_eq!(show(), text(0, 0));
    let set = |value: &str| {
        d.vsctl(&format!("set Open_vSwitch . other_config:pmd-sleep-max=\"{value}\""));
        show()
    };
    assert_eq!(set("50"), text(50, 50));
    assert_eq!(set("50,0:0,9:7"), text(50, 0));
    assert_eq!(set("0:20000"), text(0, 10_000));
    assert_eq!(set("soon,7"), text(7, 7));
    assert_eq!(d.log_lines("pmd-sleep-max: \"soon\"").len(), 1, "{}", d.log());
    assert_eq!(d.appctl("dpif-netdev/pmd-sleep-show -pmd 5"), "Default max sleep:    7 us\n");
    d.vsctl("remove Open_vSwitch . other_config pmd-sleep-max");
    d.vsctl("set Open_vSwitch . other_config:pmd-maxsleep=9");
    assert_eq!(show(), text(9, 9), "its name in OVS 3.1");
}
