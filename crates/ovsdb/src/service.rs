//! What the server answers: methods, monitors, locks and waiting transactions of all clients. No
//! sockets and no threads here; [`crate::server`] brings messages and takes away output.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::jsonrpc::Message;
use crate::lock::{ClientId, Locks};
use crate::monitor::{Monitor, Version};
use crate::store::{Committed, Store};
use crate::transact::{self, Outcome, Session};
use crate::uuid::Uuid;

/// Most monitors of a client. Real clients have one for each database.
pub const MAX_MONITORS: usize = 64;
/// Most locks that a client holds or waits for. Real clients have one.
pub const MAX_LOCKS: usize = 64;
/// Most transactions of a client that wait at the same time. Each is executed anew after every
/// commit, so this bounds what an idle client can cost the others.
pub const MAX_WAITING: usize = 16;
/// Most bytes that may wait to be sent to a client before another message is put behind them. A
/// client that is further behind is disconnected; it can connect and ask for the contents anew.
pub const MAX_BACKLOG: usize = 8 << 20;

/// A client's side of the service.
#[derive(Debug, Default)]
struct Client {
    monitors: Vec<Watch>,
    output: Vec<u8>,
    hopeless: bool,
}

#[derive(Debug)]
struct Watch {
    id: Value,
    store: usize,
    monitor: Monitor,
}

/// A transaction whose `wait` does not hold yet.
#[derive(Debug)]
struct Waiting {
    client: ClientId,
    request: Value,
    store: usize,
    operations: Vec<Value>,
    since: Instant,
    limit: Option<Duration>,
}

/// The databases and everything that clients have going on with them.
#[derive(Debug)]
pub(crate) struct Service {
    stores: Vec<Store>,
    server_id: Uuid,
    clients: BTreeMap<ClientId, Client>,
    locks: Locks,
    waiting: Vec<Waiting>,
}

/// Answer to a request: now, or later.
enum Answer {
    Now(Value),
    Later,
}

struct Who<'a> {
    locks: &'a Locks,
    client: ClientId,
    elapsed: Duration,
}

impl Session for Who<'_> {
    fn owns_lock(&self, name: &str) -> bool {
        self.locks.is_owner(name, self.client)
    }
    fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

impl Service {
    /// A service of these databases.
    pub fn new(stores: Vec<Store>) -> Self {
        let (clients, waiting) = (BTreeMap::new(), Vec::new());
        Self { stores, server_id: Uuid::random(), clients, locks: Locks::default(), waiting }
    }

    /// Starts to serve a client.
    pub fn connect(&mut self, client: ClientId) {
        self.clients.insert(client, Client::default());
    }

    /// Forgets a client: its monitors, its waiting transactions, its locks.
    pub fn disconnect(&mut self, client: ClientId) {
        self.clients.remove(&client);
        self.waiting.retain(|waiting| waiting.client != client);
        for (name, owner) in self.locks.release_all(client) {
            self.notify(owner, "locked", json!([name]));
        }
    }

    /// What is to be sent to a client; the caller removes what it has sent.
    pub fn output(&mut self, client: ClientId) -> Option<&mut Vec<u8>> {
        self.clients.get_mut(&client).map(|client| &mut client.output)
    }

    /// True if a client is too far behind to be served on.
    pub fn is_hopeless(&self, client: ClientId) -> bool {
        self.clients.get(&client).is_none_or(|client| client.hopeless)
    }

    /// When [`Service::expire`] has something to do next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadline = |waiting: &Waiting| waiting.since.checked_add(waiting.limit?);
        self.waiting.iter().filter_map(deadline).min()
    }

    /// Ends the waiting of transactions whose time is over.
    pub fn expire(&mut self, now: Instant) {
        if self.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.retry(now);
        }
    }

    /// Handles a message from a client.
    pub fn handle(&mut self, client: ClientId, message: Message, now: Instant) {
        match message {
            Message::Request { id, method, params } => {
                let parameters = params.as_array().map(Vec::as_slice).unwrap_or_default();
                let reply = match self.call(client, &id, &method, parameters, now) {
                    Ok(Answer::Now(result)) => Message::Reply { id, result },
                    Ok(Answer::Later) => return,
                    Err(error) if error.details.is_none() => {
                        Message::Error { id, error: Value::from(error.tag.as_ref()) }
                    }
                    Err(error) => Message::Error { id, error: error.to_json() },
                };
                self.send(client, &reply);
            }
            Message::Notification { method, params } if method == "cancel" => {
                self.cancel(client, &params);
            }
            // OVS ignores these too. Replies answer nothing: the server asks nothing.
            Message::Notification { .. } | Message::Reply { .. } | Message::Error { .. } => {}
        }
    }

    fn call(
        &mut self,
        client: ClientId,
        id: &Value,
        method: &str,
        params: &[Value],
        now: Instant,
    ) -> Result<Answer> {
        let result = match method {
            "transact" => return self.transact(client, id, params, now),
            "monitor" => self.monitor(client, params, Version::V1, method),
            "monitor_cond" => self.monitor(client, params, Version::V2, method),
            "monitor_cond_since" => self.monitor(client, params, Version::V3, method),
            "monitor_cond_change" => self.monitor_cond_change(client, params),
            "monitor_cancel" => self.monitor_cancel(client, params),
            "get_schema" => {
                let store = self.store(method, params)?;
                Ok(self.stores[store].db.schema().to_json())
            }
            "list_dbs" => Ok(self.stores.iter().map(|s| s.db.schema().name.as_str()).collect()),
            "get_server_id" => Ok(self.server_id.to_string().into()),
            "echo" => Ok(Value::from(params)),
            "lock" | "steal" => self.lock(client, method, params),
            "unlock" => self.unlock(client, params),
            "set_db_change_aware" => match params {
                [Value::Bool(_)] => Ok(json!({})),
                _ => {
                    let text = "set_db_change_aware: true or false parameter expected";
                    Err(Error::syntax(&params.into(), text))
                }
            },
            _ => Err(Error::bare("unknown method")),
        };
        result.map(Answer::Now)
    }

    /// The database that the first of `params` names.
    fn store(&self, method: &str, params: &[Value]) -> Result<usize> {
        let Some(name) = params.first().and_then(Value::as_str) else {
            let text = format!("{method} request params must begin with <db-name>");
            return Err(Error::syntax(&params.into(), text));
        };
        let found = self.stores.iter().position(|store| store.db.schema().name == name);
        found.ok_or_else(|| {
            let text = format!("{method} request specifies unknown database {name}");
            Error::new("unknown database", text).about(&params.into())
        })
    }

    fn transact(
        &mut self,
        client: ClientId,
        id: &Value,
        params: &[Value],
        now: Instant,
    ) -> Result<Answer> {
        let store = self.store("transact", params)?;
        let waiting = Waiting {
            client,
            request: id.clone(),
            store,
            operations: params[1..].to_vec(),
            since: now,
            limit: None,
        };
        match self.execute(&waiting, now) {
            Ok((results, committed)) => {
                // What changed is told before the reply, as OVS does.
                if let Some(committed) = committed {
                    self.publish(store, &committed);
                    self.send(client, &Message::Reply { id: id.clone(), result: results });
                    self.retry(now);
                    return Ok(Answer::Later);
                }
                Ok(Answer::Now(results))
            }
            Err(limit) => {
                let others = self.waiting.iter().filter(|other| other.client == client).count();
                if others >= MAX_WAITING {
                    let text = format!("a client may have {MAX_WAITING} waiting transactions");
                    return Err(Error::new("resources exhausted", text));
                }
                self.waiting.push(Waiting { limit, ..waiting });
                Ok(Answer::Later)
            }
        }
    }

    /// Executes a transaction and keeps what it changed. `Err` if it has to wait on, and how long.
    fn execute(
        &mut self,
        waiting: &Waiting,
        now: Instant,
    ) -> std::result::Result<(Value, Option<Committed>), Option<Duration>> {
        let elapsed = now.saturating_duration_since(waiting.since);
        let who = Who { locks: &self.locks, client: waiting.client, elapsed };
        let store = &mut self.stores[waiting.store];
        match transact::execute(&store.db, &waiting.operations, &who) {
            Outcome::Wait(limit) => Err(limit),
            Outcome::Failed(results) => Ok((Value::Array(results), None)),
            Outcome::Commit(mut results, commit) => match store.commit(commit) {
                Ok(committed) => Ok((Value::Array(results), committed)),
                Err(error) => {
                    results.push(error.to_json());
                    Ok((Value::Array(results), None))
                }
            },
        }
    }

    /// Executes waiting transactions again, until no commit of one of them lets another go on.
    fn retry(&mut self, now: Instant) {
        let mut again = true;
        while std::mem::take(&mut again) {
            for waiting in std::mem::take(&mut self.waiting) {
                match self.execute(&waiting, now) {
                    Err(limit) => self.waiting.push(Waiting { limit, ..waiting }),
                    Ok((result, committed)) => {
                        if let Some(committed) = committed {
                            self.publish(waiting.store, &committed);
                            again = true;
                        }
                        let reply = Message::Reply { id: waiting.request, result };
                        self.send(waiting.client, &reply);
                    }
                }
            }
        }
    }

    fn cancel(&mut self, client: ClientId, params: &Value) {
        let matches =
            |waiting: &Waiting| waiting.client == client && params.get(0) == Some(&waiting.request);
        if let Some(at) = self.waiting.iter().position(matches) {
            let id = self.waiting.remove(at).request;
            self.send(client, &Message::Error { id, error: "canceled".into() });
        }
    }

    /// Tells all clients what a commit changed, as far as they watch it.
    fn publish(&mut self, store: usize, committed: &Committed) {
        let schema = self.stores[store].db.schema().clone();
        let mut told = Vec::new();
        for (&id, client) in &self.clients {
            for watch in client.monitors.iter().filter(|watch| watch.store == store) {
                if let Some(updates) = watch.monitor.changes(&schema, &committed.changes) {
                    told.push((id, update(watch, committed.id, updates)));
                }
            }
        }
        for (client, message) in told {
            self.send(client, &message);
        }
    }

    fn monitor(
        &mut self,
        client: ClientId,
        params: &[Value],
        version: Version,
        method: &str,
    ) -> Result<Value> {
        let store = self.store(method, params)?;
        let (Some(id), Some(requests)) = (params.get(1), params.get(2)) else {
            let text = format!("{method} request params must be <db-name>, <id>, <requests>");
            return Err(Error::syntax(&params.into(), text));
        };
        let db = &self.stores[store].db;
        let watches = self.clients.get_mut(&client).map(|client| &mut client.monitors);
        let watches = watches.ok_or_else(|| Error::bare("unknown client"))?;
        if watches.iter().any(|watch| watch.id == *id) {
            return Err(Error::syntax(id, "duplicate monitor ID"));
        }
        if watches.len() >= MAX_MONITORS {
            let text = format!("a client may have {MAX_MONITORS} monitors");
            return Err(Error::new("resources exhausted", text));
        }
        let monitor = Monitor::from_json(requests, db.schema(), version)?;
        let initial = monitor.initial(db);
        watches.push(Watch { id: id.clone(), store, monitor });
        Ok(match version {
            Version::V1 | Version::V2 => initial,
            // No history is kept, so the client always gets everything.
            Version::V3 => json!([false, self.stores[store].last_commit.to_string(), initial]),
        })
    }

    fn monitor_cond_change(&mut self, client: ClientId, params: &[Value]) -> Result<Value> {
        let [id, new_id, changes] = params else {
            let text = "monitor_cond_change request params must be <id>, <id>, <changes>";
            return Err(Error::syntax(&params.into(), text));
        };
        let watches = self.clients.get_mut(&client).map(|client| &mut client.monitors);
        let watches = watches.ok_or_else(|| Error::bare("unknown client"))?;
        let new_id_taken = id != new_id && watches.iter().any(|watch| watch.id == *new_id);
        let conditional = |w: &&mut Watch| w.id == *id && w.monitor.version() != Version::V1;
        let Some(watch) = watches.iter_mut().find(conditional) else {
            return Err(Error::syntax(id, "unknown monitor session"));
        };
        if new_id_taken {
            return Err(Error::syntax(new_id, "duplicate monitor ID"));
        }
        let store = &self.stores[watch.store];
        let updates = watch.monitor.change_conditions(changes, &store.db)?;
        watch.id = new_id.clone();
        if let Some(updates) = updates {
            let message = update(watch, store.last_commit, updates);
            self.send(client, &message);
        }
        Ok(json!({}))
    }

    fn monitor_cancel(&mut self, client: ClientId, params: &[Value]) -> Result<Value> {
        let watches = self.clients.get_mut(&client).map(|client| &mut client.monitors);
        let watches = watches.ok_or_else(|| Error::bare("unknown client"))?;
        let at = watches.iter().position(|watch| Some(&watch.id) == params.first());
        watches.remove(at.ok_or_else(|| Error::bare("unknown monitor"))?);
        Ok(json!({}))
    }

    fn lock(&mut self, client: ClientId, method: &str, params: &[Value]) -> Result<Value> {
        let name = lock_name(method, params)?;
        if self.locks.is_queued(name, client) {
            let text = format!("must issue \"unlock\" before new \"{method}\"");
            return Err(Error::syntax(&params.into(), text));
        }
        if self.locks.count(client) >= MAX_LOCKS {
            let text = format!("a client may have {MAX_LOCKS} locks");
            return Err(Error::new("resources exhausted", text));
        }
        if method == "lock" {
            return Ok(json!({ "locked": self.locks.lock(name, client) }));
        }
        if let Some(victim) = self.locks.steal(name, client) {
            self.notify(victim, "stolen", json!([name]));
        }
        Ok(json!({ "locked": true }))
    }

    fn unlock(&mut self, client: ClientId, params: &[Value]) -> Result<Value> {
        let name = lock_name("unlock", params)?;
        if !self.locks.is_queued(name, client) {
            let text = "unlock: \"unlock\" without \"lock\" or \"steal\"";
            return Err(Error::syntax(&params.into(), text));
        }
        if let Some(owner) = self.locks.unlock(name, client) {
            self.notify(owner, "locked", json!([name]));
        }
        Ok(json!({}))
    }

    fn notify(&mut self, client: ClientId, method: &str, params: Value) {
        self.send(client, &Message::Notification { method: method.to_owned(), params });
    }

    fn send(&mut self, id: ClientId, message: &Message) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.output.len() > MAX_BACKLOG {
            if !std::mem::replace(&mut client.hopeless, true) {
                tracing::warn!(
                    "database client {id}: {} bytes behind, disconnecting it",
                    client.output.len()
                );
            }
            return;
        }
        client.output.extend(message.to_bytes());
    }
}

fn lock_name<'a>(method: &str, params: &'a [Value]) -> Result<&'a str> {
    match params {
        [Value::String(name)] if crate::value::is_id(name) => Ok(name),
        _ => Err(Error::syntax(&params.into(), format!("{method} request params must be <id>"))),
    }
}

/// The notification of a monitor's kind.
fn update(watch: &Watch, commit: Uuid, updates: Value) -> Message {
    let (method, params) = match watch.monitor.version() {
        Version::V1 => ("update", json!([watch.id, updates])),
        Version::V2 => ("update2", json!([watch.id, updates])),
        Version::V3 => ("update3", json!([watch.id, commit.to_string(), updates])),
    };
    Message::Notification { method: method.to_owned(), params }
}
