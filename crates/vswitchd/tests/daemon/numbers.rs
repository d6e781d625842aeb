//! OpenFlow port numbers, and interfaces that change places.

use crate::bench::Daemon;

fn ofports(d: &Daemon, names: &[&str]) -> Vec<String> {
    names.iter().map(|n| d.get(n, "ofport")).collect()
}

fn add(d: &Daemon, bridge: &str, name: &str, more: &str) {
    d.vsctl(&format!("add-port {bridge} {name} -- set Interface {name} type=dpdkvhostuser {more}"));
}

#[test]
fn requests_are_met_also_of_running_interfaces() {
    let d = Daemon::start();
    d.vsctl("add-br br0");
    add(&d, "br0", "a", "");
    add(&d, "br0", "b", "ofport_request=10");
    add(&d, "br0", "c", "");
    assert_eq!(ofports(&d, &["a", "b", "c"]), ["1", "10", "2"]);
    // Who did not ask makes room; a swap; a number that two ask for stays where it is.
    d.vsctl("set Interface c ofport_request=1");
    assert_eq!(ofports(&d, &["a", "b", "c"])[1..], ["10", "1"]);
    d.vsctl("set Interface b ofport_request=1 -- set Interface c ofport_request=10");
    assert_eq!(ofports(&d, &["b", "c"]), ["1", "10"]);
    d.vsctl("set Interface a ofport_request=10");
    assert_eq!(d.get("c", "ofport"), "10");
    assert_eq!(d.log_lines("both have ofport_request=10").len(), 1);
    // What a client writes into our column is put right.
    d.vsctl("set Interface b ofport=99");
    d.wait_column("b", "ofport", "1");
    let show = d.appctl("dpif/show");
    assert!(show.contains(" b 1/") && show.contains(" c 10/"), "{show}");
}

#[test]
fn ports_that_change_places_in_one_transaction() {
    let d = Daemon::start();
    d.vsctl("add-br br0 -- add-br br1");
    add(&d, "br0", "x", "");
    add(&d, "br1", "y", "");
    let uuid = d.get("x", "_uuid");
    // Both move; rows and sockets stay.
    d.vsctl(&format!(
        "remove Bridge br0 ports {x} -- add Bridge br1 ports {x} -- remove Bridge br1 ports {y} -- \
         add Bridge br0 ports {y}",
        x = d.vsctl("get Port x _uuid"),
        y = d.vsctl("get Port y _uuid"),
    ));
    let show = d.appctl("dpif/show");
    let (br0, br1) = show.split_once("  br1:").expect("both bridges");
    assert!(br0.contains(" y 1/") && br1.contains(" x 1/"), "{show}");
    assert_eq!(d.get("x", "_uuid"), uuid);
    // Deleted and made again in one transaction: another row, the same port.
    d.vsctl("del-port x -- add-port br1 x -- set Interface x type=dpdkvhostuser");
    assert_ne!(d.get("x", "_uuid"), uuid);
    assert_eq!((d.get("x", "ofport"), d.get("x", "error")), ("1".into(), "[]".into()));
    // Another type: another kind of port under the same name and number.
    let path = d.rundir().join("x.sock").display().to_string();
    d.vsctl(&format!("set Interface x type=dpdkvhostuserclient options:vhost-server-path={path}"));
    assert!(d.get("x", "status").contains("mode=client"));
    assert_eq!(d.get("x", "ofport"), "1");
    assert!(!d.files().contains(&"x".to_owned()), "the old socket is gone");
    // The bridge and all that is in it, away and back.
    d.vsctl("del-br br1 -- add-br br1 -- add-port br1 x -- set Interface x type=dpdkvhostuser");
    assert_eq!(d.get("x", "ofport"), "1");
    assert!(d.files().contains(&"x".to_owned()));
}
