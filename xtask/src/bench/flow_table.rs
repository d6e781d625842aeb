//! The OpenFlow flows of a scenario, as text that both switches read.

use super::scenario::Table;

/// Table of the masks' scenario that sends packets out.
const OUTPUT_TABLE: u8 = 200;

/// Prefix lengths of the source and the destination address whose combinations make masks: 16 times 8.
const SOURCE_PREFIXES: u32 = 16;
const SHORTEST_PREFIX: u32 = 8;

/// One flow on each line; `ports` are the OpenFlow numbers of the busy ports.
pub fn text(table: Table, ports: [u32; 2]) -> String {
    match table {
        Table::Normal => "actions=NORMAL\n".to_owned(),
        Table::PortToPort => across(ports, ""),
        Table::TenTables => ten_tables(ports),
        Table::Megaflows(count) => {
            (0..count).map(|flow| across(ports, &format!("udp,tp_src={flow},"))).collect()
        }
        Table::Masks(count) => masks(count, ports),
    }
}

/// From each port to the other, of what matches `what` (which ends with a comma, or is empty).
fn across([a, b]: [u32; 2], what: &str) -> String {
    format!("{what}in_port={a},actions=output:{b}\n{what}in_port={b},actions=output:{a}\n")
}

/// A source port for each mask, and a table for each that looks at so many bits of both addresses.
fn masks(count: u32, ports: [u32; 2]) -> String {
    let mut text = across(ports, &format!("table={OUTPUT_TABLE},"));
    for mask in 0..count {
        let table = 1 + mask;
        let source = SHORTEST_PREFIX + mask % SOURCE_PREFIXES;
        let destination = SHORTEST_PREFIX + mask / SOURCE_PREFIXES;
        text += &format!("table=0,udp,tp_src={mask},actions=resubmit(,{table})\n");
        text += &format!(
            "table={table},ip,nw_src=10.0.0.0/{source},nw_dst=10.0.0.0/{destination},\
             actions=resubmit(,{OUTPUT_TABLE})\n"
        );
    }
    text
}

/// Ports become a register at the beginning and an output at the end; what lies between looks at headers.
fn ten_tables([a, b]: [u32; 2]) -> String {
    let mut text = format!(
        "table=0,in_port={a},actions=load:{b}->NXM_NX_REG0[],resubmit(,1)\n\
         table=0,in_port={b},actions=load:{a}->NXM_NX_REG0[],resubmit(,1)\n"
    );
    let looks = [
        "vlan_tci=0",
        "dl_src=02:00:00:00:00:10/ff:ff:ff:ff:ff:f0",
        "dl_dst=02:00:00:00:00:10/ff:ff:ff:ff:ff:f0",
        "ip,nw_src=10.0.0.0/24",
        "ip,nw_dst=10.0.0.0/24",
        "ip,nw_tos=0",
        "udp",
        "udp,tp_dst=2000",
    ];
    for (table, look) in (1..).zip(looks) {
        text += &format!("table={table},{look},actions=resubmit(,{})\n", table + 1);
    }
    text + "table=9,actions=output:NXM_NX_REG0[]\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_mask_is_another() {
        let text = text(Table::Masks(128), [1, 2]);
        let looks: BTreeSet<&str> =
            text.lines().filter_map(|l| l.split_once(",ip,")).map(|(_, look)| look).collect();
        assert_eq!(looks.len(), 128);
    }

    #[test]
    fn ten_tables_are_ten() {
        let tables: BTreeSet<String> = text(Table::TenTables, [1, 2])
            .lines()
            .filter_map(|l| Some(l.split_once(',')?.0.to_owned()))
            .collect();
        assert_eq!(tables.len(), 10);
    }
}
