//! The owner: one task per broker, alive as long as the process.
//!
//! It contends for `/controller`, holds the [`Term`] while elected, and renews this broker's registration after the
//! session expired: memory is resigned first, then comes a new session, the registration, and only then an election.
//! Brokers and handlers send [`Command`]s through the [`ControllerHandle`]; it publishes a [`ControllerStatus`]. A
//! panic ends the process. Source: Kafka 3.9 `KafkaController`, `ControllerEventManager`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep};
use tracing::{error, info, warn};

use super::asked::{ElectionResults, ElectionType, Moving, ReassignmentResults, StillLed, Wishes};
use super::channel::{Answer, Channels, LinkSource};
use super::context::Context;
use super::event::{Command, Event, IsrRequest};
use super::failover;
use super::fence::{Fence, Interrupted};
use super::term::{ControllerSettings, Term};
use crate::clock::SharedClock;
use crate::cluster::control::{
    AlterPartition, ControllerError, ControllerLink, IsrLink, IsrResults, LogInventory, ShutdownLink,
};
use crate::cluster::image::ClusterImage;
use crate::cluster::registration::{Registrar, RegistrationError};
use crate::cluster::znodes::controller as znode;
use crate::coordination::{Changed, CoordinationError, Op, Session, SharedCoordination};
use crate::task;
use crate::types::limits::MAILBOX_COMMANDS_MAX;
use crate::types::{BrokerEpoch, BrokerId, TopicPartition};

/// Pause before the next election after a term ended by an error. It doubles while the store refuses every write.
const ELECTION_PAUSE: Duration = Duration::from_millis(500);
/// How often it doubles at most.
const ELECTION_PAUSE_DOUBLINGS_MAX: u32 = 3;

/// AlterPartition requests that are carried out together at most.
const ISR_REQUESTS_PER_ROUND: usize = 256;

/// What the controller is made of.
#[derive(Debug)]
pub(crate) struct ControllerParts {
    pub(crate) store: SharedCoordination,
    /// Has registered this broker already.
    pub(crate) registrar: Arc<Registrar>,
    pub(crate) links: Arc<dyn LinkSource>,
    /// This broker's own image.
    pub(crate) image: watch::Receiver<Arc<ClusterImage>>,
    /// This broker's own logs.
    pub(crate) inventory: Arc<dyn LogInventory>,
    pub(crate) clock: SharedClock,
    pub(crate) settings: ControllerSettings,
}

/// What is known of this broker's controllership.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ControllerStatus {
    /// Elected, and everything is read.
    pub(crate) active: bool,
    /// Another broker took this one's id while its session was gone: the process must end.
    pub(crate) fatal: Option<String>,
}

/// To talk to the controller of this broker.
#[derive(Debug, Clone)]
pub(crate) struct ControllerHandle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<ControllerStatus>,
}

impl ControllerHandle {
    pub(crate) fn is_active(&self) -> bool {
        self.status.borrow().active
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<ControllerStatus> {
        self.status.clone()
    }

    /// Ends the task; when this returns nothing more is written. `/controller` goes with the session.
    pub(crate) async fn stop(&self) {
        let (reply, stopped) = oneshot::channel();
        if self.commands.send(Command::Stop { reply }).await.is_ok() {
            // Dropped instead of answered means stopped as well.
            let _ = stopped.await;
        }
    }
}

impl ControllerHandle {
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, ControllerError>>) -> Command,
    ) -> Result<T, ControllerError> {
        let (reply, answer) = oneshot::channel();
        let gone = || ControllerError::Unavailable("the controller has stopped".into());
        self.commands.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// What administrators ask for.
impl ControllerHandle {
    pub(crate) async fn elect_leaders(
        &self,
        kind: ElectionType,
        partitions: BTreeSet<TopicPartition>,
    ) -> Result<ElectionResults, ControllerError> {
        self.ask(move |reply| Command::ElectLeaders { kind, partitions, reply }).await
    }

    /// Begins reassignments and takes others back. `factor_may_change`: whether a target may have more or fewer
    /// replicas than there are.
    pub(crate) async fn reassign(
        &self,
        wishes: Wishes,
        factor_may_change: bool,
    ) -> Result<ReassignmentResults, ControllerError> {
        self.ask(move |reply| Command::Reassign { wishes, factor_may_change, reply }).await
    }

    /// What is being reassigned, of these partitions or of all.
    pub(crate) async fn reassignments(
        &self,
        partitions: Option<BTreeSet<TopicPartition>>,
    ) -> Result<Vec<Moving>, ControllerError> {
        self.ask(move |reply| Command::ListReassignments { partitions, reply }).await
    }
}

impl ControllerLink for ControllerHandle {
    fn allocate_producer_ids(
        &self,
        broker: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> BoxFuture<'_, Result<Range<i64>, ControllerError>> {
        self.ask(move |reply| Command::AllocateProducerIds { broker, broker_epoch, reply }).boxed()
    }
}

impl ShutdownLink for ControllerHandle {
    fn controlled_shutdown(
        &self,
        broker: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> BoxFuture<'_, Result<StillLed, ControllerError>> {
        self.ask(move |reply| Command::ControlledShutdown { broker, broker_epoch, reply }).boxed()
    }
}

impl IsrLink for ControllerHandle {
    fn alter_partition(&self, request: AlterPartition) -> BoxFuture<'_, Result<IsrResults, ControllerError>> {
        self.ask(move |reply| Command::AlterPartition(IsrRequest { request, reply })).boxed()
    }
}

/// The other end of a handle, waiting for its parts: handlers need the handle before there is anything to lead.
#[derive(Debug)]
pub(crate) struct ControllerSeat {
    mailbox: mpsc::Receiver<Command>,
    status: watch::Sender<ControllerStatus>,
}

/// A handle, and the seat its controller will take.
pub(crate) fn seat() -> (ControllerHandle, ControllerSeat) {
    let (commands, mailbox) = mpsc::channel(MAILBOX_COMMANDS_MAX);
    let status = watch::Sender::new(ControllerStatus::default());
    let handle = ControllerHandle { commands, status: status.subscribe() };
    (handle, ControllerSeat { mailbox, status })
}

impl ControllerSeat {
    /// Starts the task, which contends at once.
    pub(crate) fn start(self, parts: ControllerParts) {
        let (answer_sender, answers) = mpsc::unbounded_channel();
        let mut session = parts.store.session();
        // It may have expired since the registration, and that is not told again.
        session.mark_changed();
        let settings = Arc::new(parts.settings.clone());
        let controller = Controller {
            parts,
            settings,
            status: self.status,
            session,
            mailbox: self.mailbox,
            held: None,
            answers,
            answer_sender,
            term: None,
            controller_changed: None,
            retry: None,
            refusals: 0,
            registering: None,
        };
        task::spawn_owner("controller", controller.run());
    }
}

async fn next_command(held: &mut Option<Command>, mailbox: &mut mpsc::Receiver<Command>) -> Option<Command> {
    match held.take() {
        Some(command) => Some(command),
        None => mailbox.recv().await,
    }
}

fn answer<T>(reply: oneshot::Sender<T>, with: T) {
    // Whoever asked may have gone.
    let _ = reply.send(with);
}

struct Controller {
    parts: ControllerParts,
    settings: Arc<ControllerSettings>,
    status: watch::Sender<ControllerStatus>,
    session: watch::Receiver<Session>,
    mailbox: mpsc::Receiver<Command>,
    /// Taken out of the mailbox, and next.
    held: Option<Command>,
    answers: mpsc::UnboundedReceiver<Answer>,
    answer_sender: mpsc::UnboundedSender<Answer>,
    term: Option<Term>,
    /// Armed on `/controller`.
    controller_changed: Option<Changed>,
    /// When to contend again after an error.
    retry: Option<Pin<Box<Sleep>>>,
    /// Terms in a row that ended because the store refused a write.
    refusals: u32,
    /// A registration under way after an expiry.
    registering: Option<JoinHandle<Result<BrokerEpoch, RegistrationError>>>,
}

/// What woke the owner.
enum Wake {
    Session,
    Registered(Result<BrokerEpoch, RegistrationError>),
    /// `/controller` changed, or it is time to try again.
    Contend,
    Event(Event),
    Command(Command),
    /// Every handle is gone.
    Orphaned,
}

impl Controller {
    async fn run(mut self) {
        self.contend().await;
        loop {
            match self.next().await {
                Wake::Session => self.on_session(),
                Wake::Registered(result) => self.on_registered(result).await,
                Wake::Contend => self.contend().await,
                Wake::Event(event) => {
                    if let Some(term) = &mut self.term {
                        let result = term.on_event(event).await;
                        self.go_on(result).await;
                    }
                }
                Wake::Command(Command::Stop { reply }) => {
                    drop(self);
                    let _ = reply.send(());
                    return;
                }
                Wake::Command(command) => self.obey(command).await,
                Wake::Orphaned => return,
            }
        }
    }

    async fn next(&mut self) -> Wake {
        let watches = self.term.as_mut().filter(|term| !term.watches.is_empty()).map(|term| term.watches.next());
        let watched = OptionFuture::from(watches).map(Option::flatten);
        tokio::select! {
            biased;
            Ok(()) = self.session.changed() => Wake::Session,
            Some(result) = OptionFuture::from(self.registering.as_mut()) => {
                self.registering = None;
                match result {
                    Ok(result) => Wake::Registered(result),
                    Err(joined) => match joined.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        // The runtime is shutting down.
                        Err(_) => Wake::Orphaned,
                    },
                }
            }
            // After an error not before the pause is over: it was this broker that gave the node up, and where it could
            // not, the attempt wakes the watch as well.
            Some(_) = OptionFuture::from(self.controller_changed.as_mut()), if self.retry.is_none() => {
                self.controller_changed = None;
                Wake::Contend
            }
            Some(()) = OptionFuture::from(self.retry.as_mut()) => {
                self.retry = None;
                Wake::Contend
            }
            Some(event) = watched => Wake::Event(event),
            Some(answer) = self.answers.recv() => Wake::Event(Event::Answered(answer)),
            command = next_command(&mut self.held, &mut self.mailbox) => command.map_or(Wake::Orphaned, Wake::Command),
        }
    }

    /// What no longer waits for its answer asks again.
    async fn obey(&mut self, command: Command) {
        match command {
            Command::AllocateProducerIds { broker, broker_epoch, reply } => {
                answer(reply, self.allocate(broker, broker_epoch).await);
            }
            Command::AlterPartition(first) => self.alter_partitions(first).await,
            Command::ControlledShutdown { broker, broker_epoch, reply } => {
                answer(reply, self.shut_down_broker(broker, broker_epoch).await);
            }
            Command::ElectLeaders { kind, partitions, reply } => {
                let result = match &mut self.term {
                    Some(term) => term.elect_leaders(kind, partitions).await.map(Ok),
                    None => Ok(Err(ControllerError::NotController)),
                };
                answer(reply, self.settle(result, |_| ControllerError::NotController).await);
            }
            Command::Reassign { wishes, factor_may_change, reply } => {
                let result = match &mut self.term {
                    Some(term) => term.reassign(wishes, factor_may_change).await.map(Ok),
                    None => Ok(Err(ControllerError::NotController)),
                };
                answer(reply, self.settle(result, |_| ControllerError::NotController).await);
            }
            Command::ListReassignments { partitions, reply } => {
                let term = self.term.as_ref().ok_or(ControllerError::NotController);
                answer(reply, term.map(|term| term.reassignments(partitions.as_ref())));
            }
            // Taken by the loop.
            Command::Stop { .. } => {}
        }
    }

    /// Takes the AlterPartition requests that wait behind the first one along: they cost one round together.
    async fn alter_partitions(&mut self, first: IsrRequest) {
        let IsrRequest { request, reply } = first;
        let (mut requests, mut replies) = (vec![request], vec![reply]);
        while requests.len() < ISR_REQUESTS_PER_ROUND {
            match self.mailbox.try_recv() {
                Ok(Command::AlterPartition(IsrRequest { request, reply })) => {
                    requests.push(request);
                    replies.push(reply);
                }
                Ok(other) => {
                    self.held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        let (answers, changed) = match &mut self.term {
            None => (Vec::new(), Vec::new()),
            Some(term) => match term.alter_partitions(requests).await {
                Ok(answered) => answered,
                Err(interrupted) => {
                    self.go_on(Err(interrupted)).await;
                    (Vec::new(), Vec::new())
                }
            },
        };
        // Where the term has ended, the next controller knows what came through.
        let answers = answers.into_iter().chain(std::iter::repeat_with(|| Err(ControllerError::NotController)));
        for (reply, result) in replies.into_iter().zip(answers) {
            answer(reply, result);
        }
        if let Some(term) = &mut self.term {
            let result = term.on_isrs_changed(changed).await;
            self.go_on(result).await;
        }
    }

    fn on_session(&mut self) {
        if *self.session.borrow_and_update() != Session::Expired || self.registering.is_some() {
            return;
        }
        warn!("the session expired; registering anew");
        self.resign_in_memory();
        self.controller_changed = None;
        self.retry = None;
        let registrar = self.parts.registrar.clone();
        self.registering = Some(task::spawn(async move { registrar.register_anew().await }));
    }

    async fn on_registered(&mut self, result: Result<BrokerEpoch, RegistrationError>) {
        match result {
            Ok(_) if *self.session.borrow() == Session::Expired => self.on_session(),
            Ok(_) => self.contend().await,
            Err(fatal) => {
                error!(error = %fatal, "this broker cannot be a member of the cluster any more");
                self.status.send_modify(|status| status.fatal = Some(fatal.to_string()));
            }
        }
    }

    /// Follows whoever is controller, or becomes it.
    async fn contend(&mut self) {
        if self.registering.is_some() {
            return;
        }
        let result = self.try_contend().await;
        self.go_on(result).await;
    }

    async fn try_contend(&mut self) -> Result<(), Interrupted> {
        loop {
            let (node, changed) = self.parts.store.get_and_watch(znode::PATH).await?;
            self.controller_changed = Some(changed);
            if let Some((data, stat)) = node {
                let Session::Connected(session) = *self.session.borrow() else {
                    return Err(CoordinationError::Unknown("the connection is lost".into()).into());
                };
                if stat.ephemeral_owner == session && self.term.is_some() {
                    return Ok(());
                }
                self.resign_in_memory();
                // Ours, but not of this term: the answer to its creation was lost, or an earlier process of this log
                // directory left it. It is not acted on.
                if stat.ephemeral_owner == session || self.parts.registrar.sessions.contains(stat.ephemeral_owner) {
                    match self.parts.store.delete(znode::PATH, stat.version).await {
                        Ok(()) | Err(CoordinationError::NoNode(_) | CoordinationError::BadVersion(_)) => continue,
                        Err(error) => return Err(error.into()),
                    }
                }
                match znode::decode(&data) {
                    Ok(node) => info!(controller = %node.broker, "following"),
                    Err(error) => warn!(%error, "following a controller that cannot be read"),
                }
                return Ok(());
            }
            self.resign_in_memory();
            if !self.settings.eligible {
                return Ok(());
            }
            if self.is_migrating().await? {
                warn!("a migration to KRaft owns this cluster; this broker does not contend");
                return Ok(());
            }
            let now_ms = self.parts.clock.now_ms();
            if let Some(fence) = failover::claim(&self.parts.store, self.settings.broker, now_ms).await? {
                return self.take_over(fence).await;
            }
        }
    }

    async fn is_migrating(&self) -> Result<bool, Interrupted> {
        let node = self.parts.store.get(znode::MIGRATION_PATH).await?;
        Ok(node.is_some_and(|(data, _)| znode::is_migrating(&data)))
    }

    async fn take_over(&mut self, fence: Fence) -> Result<(), Interrupted> {
        let channels = Channels::new(self.parts.links.clone(), fence.epoch, self.answer_sender.clone());
        let mut term = Term {
            store: self.parts.store.clone(),
            settings: self.settings.clone(),
            clock: self.parts.clock.clone(),
            image: self.parts.image.clone(),
            inventory: self.parts.inventory.clone(),
            fence,
            context: Context::default(),
            channels,
            watches: Default::default(),
            retry: Default::default(),
        };
        let result = term.fail_over().await;
        self.term = Some(term);
        if result.is_ok() {
            self.refusals = 0;
            self.status.send_modify(|status| status.active = true);
        }
        result
    }

    /// Ends the term if its last step failed.
    async fn go_on(&mut self, result: Result<(), Interrupted>) {
        let Err(interrupted) = result else { return };
        let fence = self.term.as_ref().map(|term| term.fence.clone());
        self.resign_in_memory();
        match interrupted {
            Interrupted::Moved => {
                info!("another controller was elected");
                self.retry = Some(Box::pin(sleep(Duration::ZERO)));
            }
            // The session's own state brings a new one.
            Interrupted::Store(CoordinationError::SessionExpired) => {}
            Interrupted::Store(error) => {
                warn!(%error, "the controller's term ends; the next one reads everything again");
                if let Some(fence) = fence {
                    // At best. If it fails, the node is found to be ours and deleted before the next election.
                    let _ = fence.write(vec![Op::Delete { path: znode::PATH.into(), version: -1 }]).await;
                }
                let refused = matches!(error, CoordinationError::Refused(_));
                self.refusals = if refused { (self.refusals + 1).min(ELECTION_PAUSE_DOUBLINGS_MAX) } else { 0 };
                self.retry = Some(Box::pin(sleep(ELECTION_PAUSE * 2_u32.pow(self.refusals))));
            }
        }
    }

    fn resign_in_memory(&mut self) {
        if self.term.take().is_some() {
            self.status.send_modify(|status| status.active = false);
        }
    }

    async fn allocate(&mut self, broker: BrokerId, epoch: BrokerEpoch) -> Result<Range<i64>, ControllerError> {
        let Some(term) = &mut self.term else { return Err(ControllerError::NotController) };
        let result = term.allocate_producer_ids(broker, epoch).await;
        self.settle(result, |interrupted| ControllerError::Unavailable(interrupted.to_string())).await
    }

    async fn shut_down_broker(&mut self, broker: BrokerId, epoch: BrokerEpoch) -> Result<StillLed, ControllerError> {
        let Some(term) = &mut self.term else { return Err(ControllerError::NotController) };
        let result = term.shut_down_broker(broker, epoch).await;
        self.settle(result, |_| ControllerError::NotController).await
    }

    /// The answer to a command; an interruption ends the term, and is answered as `otherwise` says.
    async fn settle<T>(
        &mut self,
        result: Result<Result<T, ControllerError>, Interrupted>,
        otherwise: impl FnOnce(&Interrupted) -> ControllerError,
    ) -> Result<T, ControllerError> {
        match result {
            Ok(answer) => answer,
            Err(interrupted) => {
                let answer = Err(otherwise(&interrupted));
                self.go_on(Err(interrupted)).await;
                answer
            }
        }
    }
}
