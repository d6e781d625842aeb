//! The pipeline's part of the operator's commands about MAC and multicast tables: text in, text out, grammar and
//! layout as those of `ovs-appctl`.

use crate::bridge::Bridge;
use crate::error::Error;
use crate::fdb::{self, Address};
use crate::pipeline::{Pipeline, no_port};
use flow::Mac;
use std::sync::Arc;

/// Highest VLAN number that `fdb/add` takes.
const MAX_VLAN: u16 = 4095;

/// Multicast tables.
impl Pipeline {
    /// `mdb/show BRIDGE`.
    ///
    /// # Errors
    /// [`Error::NoBridge`], [`Error::NotSnooping`].
    pub fn mdb_show(&self, bridge: &str, now_ms: u64) -> Result<String, Error> {
        let mdb = self.bridge(bridge)?.mdb.clone().ok_or(Error::NotSnooping)?;
        let mdb = mdb.lock();
        Ok(mdb.show(now_ms))
    }

    /// `mdb/flush [BRIDGE]`: forgets groups and routers, of all bridges if none is named.
    ///
    /// # Errors
    /// [`Error::NoBridge`], or [`Error::NotSnooping`] of one that is named.
    pub fn mdb_flush(&self, bridge: Option<&str>) -> Result<String, Error> {
        for b in self.named_or_all(bridge)? {
            match &b.mdb {
                Some(mdb) => drop(mdb.change(|m| m.flush())),
                None if bridge.is_some() => return Err(Error::NotSnooping),
                None => {}
            }
        }
        Ok("table successfully flushed\n".to_owned())
    }
}

/// MAC tables.
impl Pipeline {
    /// `fdb/show BRIDGE`.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn fdb_show(&self, bridge: &str, now_ms: u64) -> Result<String, Error> {
        let rows = self.bridge(bridge)?.fdb.lock().rows();
        Ok(fdb::show(rows, now_ms))
    }

    /// `fdb/stats-show BRIDGE`.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn fdb_stats_show(&self, bridge: &str) -> Result<String, Error> {
        Ok(self.bridge(bridge)?.fdb.lock().stats(bridge))
    }

    /// `fdb/stats-clear [BRIDGE]`: of all bridges if none is named.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn fdb_stats_clear(&self, bridge: Option<&str>) -> Result<String, Error> {
        for bridge in self.named_or_all(bridge)? {
            bridge.fdb.lock().clear_stats();
        }
        Ok("statistics successfully cleared\n".to_owned())
    }

    /// `fdb/flush [BRIDGE]`: forgets what was learned, of all bridges if none is named; static
    /// entries stay.
    ///
    /// # Errors
    /// [`Error::NoBridge`].
    pub fn fdb_flush(&self, bridge: Option<&str>) -> Result<String, Error> {
        for bridge in self.named_or_all(bridge)? {
            bridge.fdb.change(|f| f.flush());
        }
        Ok("table successfully flushed\n".to_owned())
    }

    /// `fdb/add BRIDGE PORT VLAN MAC`: a static entry; the port by name or number. Answers a line if
    /// it takes the place of another.
    ///
    /// # Errors
    /// For an unknown bridge or port, a bad VLAN or address, or a table full of static entries.
    pub fn fdb_add(
        &self,
        bridge: &str,
        port: &str,
        vlan: &str,
        mac: &str,
    ) -> Result<String, Error> {
        let bridge = self.bridge(bridge)?;
        let Some(id) = bridge.find_port(port).map(|p| p.id) else {
            return Err(no_port(&bridge, port));
        };
        let address = address(vlan, mac)?;
        let mut answer = Ok(None);
        bridge.fdb.change(|f| {
            answer = f.add_static(address, id);
            answer.is_ok()
        });
        match answer {
            Ok(None) => Ok(String::new()),
            Ok(Some(old)) => Ok(format!("Overriding already existing static entry on {old}\n")),
            Err(()) => Err(Error::FdbFull(bridge.name.clone())),
        }
    }

    /// `fdb/del BRIDGE VLAN MAC`: removes a static entry. Answers nothing.
    ///
    /// # Errors
    /// For an unknown bridge, a bad VLAN or address, or if there is no such static entry.
    pub fn fdb_del(&self, bridge: &str, vlan: &str, mac: &str) -> Result<String, Error> {
        let bridge = self.bridge(bridge)?;
        let address = address(vlan, mac)?;
        match bridge.fdb.change(|f| f.remove_static(address)) {
            true => Ok(String::new()),
            false => Err(Error::NoStaticMac(format!("{mac} in VLAN {vlan}"))),
        }
    }

    fn named_or_all(&self, bridge: Option<&str>) -> Result<Vec<Arc<Bridge>>, Error> {
        match bridge {
            Some(name) => Ok(vec![self.bridge(name)?]),
            None => Ok(self.all_bridges()),
        }
    }
}

fn address(vlan: &str, mac: &str) -> Result<Address, Error> {
    let number = vlan.parse().ok().filter(|v| *v <= MAX_VLAN);
    let vlan = number.ok_or_else(|| Error::BadVlan(vlan.to_owned()))?;
    let mac: Mac = mac.parse().map_err(|_| Error::BadMac(mac.to_owned()))?;
    Ok(Address { vlan, mac })
}
