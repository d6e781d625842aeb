//! The same command lines by `vswitchctl` and by Debian's `ovs-vsctl`, each on a database of its
//! own: standard output, exit status and the databases must be the same, but for the UUIDs that
//! servers choose and the order of rows that follows from them.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::common::{Kind, Run, Server, debian, ours, run, words};
use serde_json::Value;

/// Runs a line on both and compares. `UUID(TABLE)` in a line stands for the only row of a table.
struct Pair {
    theirs: Server,
    ours: Server,
}

impl Pair {
    fn start(kind: Kind) -> Self {
        Self { theirs: Server::start(kind), ours: Server::start(kind) }
    }

    /// What differs, if anything does.
    fn check(&self, line: &str) -> Result<(), String> {
        let theirs = run(debian("ovs-vsctl")
            .args(["--no-syslog", "-vconsole:off", "--no-wait", "--timeout=20", &self.theirs.db()])
            .args(words(&expand(line, &self.theirs))));
        let ours = run(ours()
            .args(["--no-wait", "--timeout=20", &self.ours.db()])
            .args(words(&expand(line, &self.ours))));
        let context = format!("{line}\ntheirs: {theirs:#?}\nours: {ours:#?}");
        same("status", &ours.status, &theirs.status, &context)?;
        check_message(&ours, &context)?;
        let (theirs_db, ours_db) = (self.theirs.dump(), self.ours.dump());
        let (theirs_names, ours_names) = (names(&theirs_db), names(&ours_db));
        let ours_out = canonical_text(&ours.out, &ours_names);
        same("output", &ours_out, &canonical_text(&theirs.out, &theirs_names), &context)?;
        let ours_rows = canonical_rows(&ours_db, &ours_names);
        same("database", &ours_rows, &canonical_rows(&theirs_db, &theirs_names), &context)
    }
}

fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    ours: &T,
    theirs: &T,
    context: &str,
) -> Result<(), String> {
    match ours == theirs {
        true => Ok(()),
        false => Err(format!("{what} differs: {context}\n ours {ours:#?}\n theirs {theirs:#?}")),
    }
}

/// A failure says so in one line with our name, and success says nothing but warnings.
fn check_message(run: &Run, context: &str) -> Result<(), String> {
    let lines: Vec<&str> = run.err.lines().collect();
    let good = match run.status {
        1 => lines.len() == 1 && lines[0].starts_with("vswitchctl: "),
        _ => lines.iter().all(|line| line.starts_with("vswitchctl: warning: ")),
    };
    if good { Ok(()) } else { Err(format!("not a good message: {context}")) }
}

fn expand(line: &str, server: &Server) -> String {
    let Some((before, rest)) = line.split_once("UUID(") else { return line.to_owned() };
    let (table, after) = rest.split_once(')').unwrap();
    let rows = tables(&server.dump()).remove(table).unwrap();
    format!("{before}{}{after}", rows[0]["_uuid"][1].as_str().unwrap())
}

type Row = BTreeMap<String, Value>;

/// The tables of a dump. Each is a JSON object with caption, headings and data on its line.
fn tables(dump: &str) -> BTreeMap<String, Vec<Row>> {
    let parse = |line: &str| {
        let table: Value = serde_json::from_str(line).unwrap();
        let caption = table["caption"].as_str().unwrap().trim_end_matches(" table").to_owned();
        let headings = table["headings"].as_array().unwrap();
        let row = |row: &Value| {
            let cells = row.as_array().unwrap().iter().cloned();
            headings.iter().map(|h| h.as_str().unwrap().to_owned()).zip(cells).collect()
        };
        (caption, table["data"].as_array().unwrap().iter().map(row).collect())
    };
    dump.lines().filter(|line| !line.is_empty()).map(parse).collect()
}

/// Names for UUIDs: the table and a digest of the contents without references, which both databases
/// share.
fn names(dump: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for (table, rows) in tables(dump) {
        for row in rows {
            let uuid = row["_uuid"][1].as_str().unwrap().to_owned();
            let mut plain = row.clone();
            plain.retain(|_, value| !value.to_string().contains("\"uuid\""));
            let mut digest = DefaultHasher::new();
            Value::from_iter(plain).to_string().hash(&mut digest);
            names.insert(uuid, format!("<{table} {:016x}>", digest.finish()));
        }
    }
    names
}

fn renamed(text: &str, names: &BTreeMap<String, String>) -> String {
    names.iter().fold(text.to_owned(), |text, (uuid, name)| text.replace(uuid, name))
}

fn canonical_rows(dump: &str, names: &BTreeMap<String, String>) -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    for (table, of_table) in tables(dump) {
        for mut row in of_table {
            row.remove("_version");
            for value in row.values_mut() {
                rename_and_sort(value, names);
            }
            rows.push(format!("{table} {}", Value::from_iter(row)));
        }
    }
    rows.sort();
    rows
}

/// Replaces UUIDs by names and sorts the lists they are in.
fn rename_and_sort(value: &mut Value, names: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => *text = names.get(text).unwrap_or(text).clone(),
        Value::Array(items) => {
            items.iter_mut().for_each(|item| rename_and_sort(item, names));
            if items.iter().all(Value::is_array) {
                items.sort_by_key(Value::to_string);
            }
        }
        Value::Object(members) => {
            members.values_mut().for_each(|member| rename_and_sort(member, names));
        }
        _ => {}
    }
}

/// Output with names for UUIDs and in an order that does not depend on them: blocks of `list`,
/// the tree of `show`, lines of tables, elements of JSON.
fn canonical_text(text: &str, names: &BTreeMap<String, String>) -> Vec<String> {
    if let Ok(mut json) = serde_json::from_str::<Value>(text) {
        rename_and_sort(&mut json, names);
        return vec![json.to_string()];
    }
    let text = renamed(text, names);
    if text.lines().any(|line| line.starts_with("    ") && !line.contains(" : ")) {
        return tree(&text);
    }
    // Sets of rows are printed in the order of their UUIDs.
    let sorted = |line: &str| {
        let (head, list) = line.split_once('[').unwrap_or((line, ""));
        let mut list: Vec<&str> = list.trim_end_matches(']').split(", ").collect();
        list.sort_unstable();
        format!("{head}[{}", list.join("|"))
    };
    let mut blocks: Vec<String> = text
        .split("\n\n")
        .map(|block| block.lines().map(sorted).collect::<Vec<_>>().join("\n"))
        .collect();
    blocks.sort();
    let tabular = text.lines().any(|line| line.starts_with("---"));
    match tabular {
        // Widths follow from contents, not from chance; only the order of lines does.
        true => {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        }
        false => blocks,
    }
}

/// The lines of `show`, each after those it is indented under, sorted.
fn tree(text: &str) -> Vec<String> {
    let mut path: Vec<&str> = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let depth = (line.len() - line.trim_start().len()) / 4;
        path.truncate(depth);
        path.push(line.trim_start());
        lines.push(path.join(" > "));
    }
    lines.sort();
    lines
}

/// Checks all lines one after the other, on Debian's database server and on ours.
fn check_all(lines: &str) {
    for kind in [Kind::Debian, Kind::Ours] {
        check_all_on(kind, lines);
    }
}

fn check_all_on(kind: Kind, lines: &str) {
    let pair = Pair::start(kind);
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    let wrong: Vec<String> = lines.filter_map(|line| pair.check(line).err()).collect();
    assert!(wrong.is_empty(), "{kind:?}: {} lines differ:\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn bridges() {
    check_all(
        "
        init
        list-br
        show
        add-br br0
        add-br br0
        --may-exist add-br br0
        add-br br1 -- add-br br2 -- del-br br2
        add-br br3 -- add-br br3
        list-br
        br-exists br0
        br-exists nope
        list-br -- br-exists nope
        del-br nope
        --if-exists del-br nope
        del-br br1
        br-to-vlan br0
        br-to-parent br0
        br-to-vlan nope
        br-set-external-id br0 key value
        br-set-external-id br0 other 'two words'
        br-get-external-id br0
        br-get-external-id br0 key
        br-get-external-id br0 nope
        br-set-external-id br0 key
        br-get-external-id br0
        add-br
        add-br a b
        add-br a b c d
        add-br a nope 5
        add-br a br0 4096
        add-br f1 br0 100
        add-br f2 br0 100
        add-br f2 f1 200
        --may-exist add-br f1 br0 100
        --may-exist add-br f1 br0 101
        --may-exist add-br f1
        --may-exist add-br br0 br0 5
        list-br
        --real list-br
        --fake list-br
        --real --fake list-br
        br-exists f1
        br-to-vlan f1
        br-to-parent f1
        br-set-external-id f1 k v
        br-get-external-id f1
        br-get-external-id br0
        get Port f1 external_ids
        add-port f1 fp
        add-port br0 tagged tag=100
        list-ports f1
        list-ports br0
        port-to-br fp
        iface-to-br fp
        iface-to-br f1
        port-to-br f1
        port-to-br br0
        iface-to-br br0
        del-port br0 fp
        del-port f1
        --if-exists del-port f1
        del-port br0
        --if-exists del-port br0
        show
        del-br f1
        add-br f3 br0 7 -- add-port f3 p7 -- list-ports f3
        del-br br0
        list-br
        show
        ",
    );
}

#[test]
fn ports() {
    check_all(
        "
        add-br br0
        add-port br0 p0
        add-port br0 p0
        --may-exist add-port br0 p0
        add-port nope p1
        add-port br0
        add-port br0 p1 tag=5 trunks=1,2,7-9
        add-port br0 p2 tag=5000
        add-port br0 p2 nocolumn=1
        add-port br0 p2 name=x
        add-port br0 br0
        add-port br0 'we ird' external-ids:a=b -- set Interface 'we ird' type=vxlan options:remote_ip=1.2.3.4
        add-port br0 vm1 -- set Interface vm1 type=dpdkvhostuserclient options:vhost-server-path=/run/vm1.sock ofport_request=7
        --no-wait add-port br0 p9 vlan_mode=dot1q-tunnel tag=100 cvlans=0,10 other-config:qinq-ethtype=802.1q
        list-ports br0
        list-ifaces br0
        show
        add-bond br0 bond0 e0 e1
        add-bond br0 bond1 e2
        add-bond br0 bond1 e2 bond_mode=balance-slb
        add-bond br0 bond1 e2 e3 bond_mode=balance-slb lacp=active
        --fake-iface add-bond br0 bond2 e4 e5
        --may-exist add-bond br0 bond0 e1 e0
        --may-exist add-bond br0 bond0 e1 e9
        --may-exist add-port br0 bond0
        add-bond-iface bond0 e6
        add-bond-iface bond0 e6
        --may-exist add-bond-iface bond0 e6
        --may-exist add-bond-iface bond0 e2
        del-bond-iface bond0 e6
        del-bond-iface bond0 e2
        del-bond-iface e3
        del-bond-iface e2
        --if-exists del-bond-iface e99
        list-ports br0
        list-ifaces br0
        port-to-br bond0
        port-to-br nope
        iface-to-br e1
        iface-to-br nope
        del-port e1
        --with-iface del-port e1
        del-port p0
        del-port p0
        --if-exists del-port p0
        del-port br0 p1
        add-br br1
        del-port br1 p9
        --if-exists del-port br1 p9
        --may-exist add-port br1 p9
        show
        add-port br0 q0 -- add-port br0 q0
        add-port br0 q1 -- del-port q1 -- add-port br0 q1 tag=3 -- list-ports br0
        add-port br0 q2 -- nonsense
        list-ports br0
        ",
    );
}

#[test]
fn control() {
    check_all(
        "
        add-br br0
        get-controller br0
        set-controller br0 tcp:1.2.3.4:6653 ptcp:6654
        get-controller br0
        set-controller br0 tcp:1.2.3.4:6653
        --inactivity-probe=5000 set-controller br0 tcp:5.6.7.8
        get-controller br0
        set-controller nope tcp:1.2.3.4
        show
        list Controller br0
        get Controller br0 target
        del-controller br0
        get-controller br0
        set-fail-mode br0 secure
        get-fail-mode br0
        set-fail-mode br0 insecure
        del-fail-mode br0
        get-fail-mode br0
        get-manager
        set-manager ptcp:6640 tcp:1.2.3.4:6640
        get-manager
        set-manager ptcp:6640
        get-manager
        set-manager
        --inactivity-probe=7000 set-manager ptcp:6641
        del-manager
        get-ssl
        set-ssl /a /b /c
        get-ssl
        --bootstrap set-ssl /d /e /f
        get-ssl
        del-ssl
        get-ssl
        set-controller br0 tcp:1.2.3.4 -- set-manager ptcp:1 -- set Bridge br0 other_config:hwaddr='\"02:00:00:00:00:01\"' other_config:x=y
        set Interface br0 ingress_policing_rate=100 other_config:a=b -- set Port br0 other_config:c=d -- set Open_vSwitch . other_config:e=f
        emer-reset
        show
        ",
    );
}

#[test]
fn database() {
    check_all(
        "
        add-br br0 -- add-port br0 p0 -- add-port br0 p1
        set Bridge br0 datapath_type=netdev
        set bridge br0 datapath-type=netdev fail_mode=secure
        set bri br0 stp=true
        set br br0 nope=1
        set Bridg3 br0 name=x
        set Bridge nope fail_mode=secure
        --if-exists set Bridge nope fail_mode=secure
        set Bridge br0 name=x
        set Bridge br0 fail_mode=open
        set Bridge br0 fail_mode
        set Bridge br0 fail_mode=
        set Bridge br0 fail_mode=[]
        set Bridge br0 flood_vlans=1-4,7 other-config:key=value
        set Bridge br0 flood_vlans=4097
        set Bridge br0 flood_vlans=1,1
        set Bridge br0 flood_vlans=x
        set Bridge br0 flood_vlans=5-1
        set Bridge br0 'other_config={a=b, c=\"d e\"}' external_ids:k='two words'
        set Bridge br0 other_config:a=
        set Bridge br0 other_config:a='\"\"'
        set Bridge br0 datapath_type=a:b
        set Bridge br0 datapath_type='\"a:b\"'
        set Bridge br0 datapath_type=a,b
        set Bridge br0 fail_mode:x=y
        set Bridge br0 protocols=OpenFlow10,OpenFlow13
        set Bridge br0 stp_enable=maybe
        set Bridge br0 mcast_snooping_enable=yes
        set Interface p0 mtu_request=9000 ofport_request=7
        set Interface p0 ofport_request=70000
        set Interface p0 options:a=1 options:b=2 -- get Interface p0 options
        set Interface p0 mtu_request=nine
        set Port p0 tag=5 -- set Port p1 tag=[6]
        set Open_vSwitch . other_config:pmd-cpu-mask=0x3
        set Open_vSwitch x other_config:a=b
        get Open_vSwitch . other_config
        get Open_vSwitch . other_config:pmd-cpu-mask
        get Bridge br0 name datapath_type fail_mode flood_vlans other_config external_ids
        get Bridge br0 other_config:nope
        --if-exists get Bridge br0 other_config:nope
        --if-exists get Bridge nope name
        get Bridge nope name
        get Bridge br0 nope
        get Bridge br0 fail_mode:x
        get Bridge br0 name:
        get Bridge br0 name=br0
        get Bridge br0
        get Bridge br0 _uuid
        get Bridge br0 ports
        get interface p0 ofport
        get Bridge UUID(Bridge) name
        add Bridge br0 flood_vlans 20 21,22
        add Bridge br0 flood_vlans 20
        add Bridge br0 other_config a=new z=26
        add Bridge br0 other_config z
        add Port p0 tag 7
        add Bridge br0 name x
        remove Bridge br0 flood_vlans 20 99
        remove Bridge br0 other_config a z=26
        remove Bridge br0 other_config z=27
        remove Bridge br0 other_config c=x
        --if-exists remove Bridge nope other_config c
        remove Port p0 interfaces UUID(Interface)
        clear Bridge br0 flood_vlans other_config
        clear Bridge br0 name
        clear Bridge br0 datapath_type
        --if-exists clear Bridge nope other_config
        comment any thing
        ",
    );
}

#[test]
fn rows() {
    check_all(
        "
        add-br br0 -- add-port br0 p0 tag=3 -- add-port br0 p1 -- set Interface p0 options:a=b options:c=d type=patch
        list Bridge
        list Bridge br0
        list bridge nope
        --if-exists list Bridge nope
        --columns=name list Bridge br0 br0
        list Interface p0
        --columns=name,type,_uuid list Interface
        --columns=name,nope list Interface
        -f table --columns=name,options,type list Interface p0
        -f csv --columns=name,options,type list Interface p0
        -f json --columns=name,options,type,_uuid list Interface p0
        -f html --columns=name,options,type list Interface p0
        -f json --pretty --columns=name,options list Interface p0
        -d bare --columns=name,options,tag list Port p0
        -d bare --columns=name,options list Interface p0
        -d json --columns=name,options,type list Interface p0
        -f table -d json --columns=name,options list Interface p0
        --bare --columns=name,options list Interface p0
        --no-headings -f table --columns=name,options list Interface p0
        --no-headings -f csv --columns=name,options list Interface p0
        --no-headings --columns=name,options list Interface p0
        --max-column-width=6 -f table --columns=name,options list Interface p0
        -f table --columns=name list Interface p0 -- --columns=name,tag list Port p0
        --columns=name list Interface p0 -- --columns=name,tag list Port p0
        -f csv --columns=name list Interface p0 -- --columns=name,tag list Port p0
        -f yaml list Interface
        --oneline list-br -- list-ports br0 -- comment x -- --columns=name list Bridge
        --oneline set Bridge br0 external_ids:a='b\\c' -- get Bridge br0 external_ids
        find Interface type=patch
        --columns=name find Interface type!=patch
        --columns=name find Interface options:a=b
        --columns=name find Interface options:a!=b
        --columns=name find Interface options:a{!=}x
        --columns=name find Interface options={a=b,c=d}
        --columns=name find Interface options{>=}a=b
        --columns=name find Interface options{<}a=b,c=d,e=f
        --columns=name find Interface options{in}a=b,c=d
        --columns=name find Interface options{not-in}a=b
        --columns=name find Port tag=3
        --columns=name find Port tag>2 tag<4
        --columns=name find Port tag>=4
        --columns=name find Port tag<=2
        --columns=name find Port tag=[]
        --columns=name find Port name=nope
        --columns=name find Port nope=1
        --columns=name find Port tag
        --columns=name find Port tag=x
        -f table find Port name=nope
        -f json --columns=name find Port name=nope
        create QoS type=egress-policer other_config:cir=1 other-config:cbs=2048
        --columns=type,other_config list QoS
        create QoS
        create QoS nope=1
        create Nope a=b
        set Port p0 qos=@q -- --id=@q create QoS type=x queues:0=@u -- --id=@u create Queue other_config:max-rate=10
        list QoS p0
        get QoS p0 type
        set Port p1 qos=@nobody
        --id=@a create QoS type=1 -- --id=@a create QoS type=2
        --id=a create QoS type=1
        --id=@r get Port p0 -- --id=@m create Mirror name=m0 select_src_port=@r output_port=@r -- set Bridge br0 mirrors=@m
        --id=@m get Mirror m0 -- remove Bridge br0 mirrors @m
        --id=@p create Port name=alone
        -- --id=@q get QoS p0 -- set Port p1 qos=@q
        -- --id=@n create NetFlow 'targets=\"1.2.3.4:5566\"' -- set Bridge br0 netflow=@n
        set NetFlow br0 active_timeout=60
        clear Bridge br0 netflow
        destroy QoS nope
        --if-exists destroy QoS nope
        clear Port p0 qos -- clear Port p1 qos -- --all destroy QoS
        --all destroy Queue
        --all destroy Queue x
        destroy Queue
        destroy Port p0
        destroy Bridge br0
        wait-until Bridge br0
        wait-until Bridge br0 name=br0
        wait-until Nope x
        list-br
        ",
    );
}

#[test]
fn mistakes() {
    check_all(
        "
        add-br br0
        --
        ad-br br1
        list-br x
        --nope list-br
        --may-exist list-br
        --columns list Bridge
        --if-exists=1 del-br br0
        -- --if-exists del-port x -- list-br
        list-br -- -- list-br
        list
        get Bridge
        set Bridge br0
        add Bridge br0 flood_vlans
        --id=@x list Bridge
        --if-exists --id=@x get Bridge br0
        --dry-run add-br br1 -- list-br
        list-br
        ",
    );
}

/// The words of our messages: what is wrong and what was probably meant.
#[test]
fn messages_say_what_was_meant() {
    let server = Server::start(Kind::Debian);
    let check = |line: &str, expect: &str| {
        let run = run(ours().args(["--no-wait", &server.db()]).args(words(line)));
        assert_eq!(run.status, 1, "{line}: {run:?}");
        assert_eq!(run.err.trim_end(), format!("vswitchctl: {expect}"), "{line}");
    };
    assert_eq!(run(ours().args(["--no-wait", &server.db(), "add-br", "br0"])).status, 0);
    check("ad-br br1", "unknown command \"ad-br\"; did you mean \"add-br\"?");
    check("set Brige br0 fail_mode=secure", "no table \"Brige\"; did you mean \"Bridge\"?");
    check(
        "set Bridge br0 failmode=secure",
        "table Bridge has no column \"failmode\"; did you mean \"fail_mode\"?",
    );
    check("list-ports br9", "no bridge named br9; did you mean \"br0\"?");
    check("get Bridge br1 name", "table Bridge has no row \"br1\"; did you mean \"br0\"?");
    check(
        "add-port br0",
        "too few arguments to add-port; usage: add-port BRIDGE PORT [COLUMN[:KEY]=VALUE]...",
    );
    check(
        "set Bridge br0 fail_mode=x",
        "Bridge fail_mode: constraint violation: x is not one of the allowed values ([secure, \
         standalone])",
    );
    check("list-br -- list-ports nope", "in \"list-ports nope\": no bridge named nope");
}
