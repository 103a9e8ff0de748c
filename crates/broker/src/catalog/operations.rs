//! The operations on topics, and the description of the node: the gate, then the work.

use std::future::Future;
use std::sync::Arc;

use super::alter::alter;
use super::create::{check, check_count, create};
use super::delete::delete;
use super::describe::{describe, describe_node, list};
use super::grow::add_partitions;
use crate::access::{Operation, authorize};
use crate::broker::{Broker, Core};
use crate::context::RequestContext;
use crate::error::Error;
use crate::exec::reply;
use crate::settings::SettingChange;
use crate::topic::{CreateTopic, ListTopics, NodeDescription, Topic, TopicDescription, TopicPage};

impl Broker {
    /// Creates a topic. It is on disk when the answer comes.
    ///
    /// # Errors
    /// [`TopicNameInvalid`](crate::Reason::TopicNameInvalid), [`PartitionCountInvalid`](crate::Reason::PartitionCountInvalid),
    /// [`SettingInvalid`](crate::Reason::SettingInvalid), [`TopicExists`](crate::Reason::TopicExists),
    /// [`LimitExceeded`](crate::Reason::LimitExceeded) also for too many topics or partitions, and
    /// [those of every change](Broker#errors-of-every-call).
    pub fn create_topic(
        &self,
        context: &RequestContext,
        request: CreateTopic,
    ) -> impl Future<Output = Result<Topic, Error>> + Send + 'static + use<> {
        let allowed = authorize(context, &Operation::CreateTopic { topic: &request.name });
        let checked = allowed.and_then(|()| check(&request, self.core())).map(drop);
        self.change(checked, "the creation of a topic", |core| create(core, request))
    }

    /// Deletes a topic and its records. It stays deleted when the answer comes; the name is free at once,
    /// the space a little later.
    ///
    /// # Errors
    /// [`TopicNotFound`](crate::Reason::TopicNotFound), and [those of every change](Broker#errors-of-every-call).
    pub fn delete_topic(
        &self,
        context: &RequestContext,
        name: &str,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let allowed = authorize(context, &Operation::DeleteTopic { topic: name });
        let name = name.to_owned();
        self.change(allowed, "the deletion of a topic", move |core| delete(core, &name))
    }

    /// Changes settings of a topic, each that is named, and leaves the others as they are. The changes are on
    /// disk when the answer comes, and hold for what is produced after it.
    ///
    /// # Errors
    /// [`SettingInvalid`](crate::Reason::SettingInvalid), [`TopicNotFound`](crate::Reason::TopicNotFound), and
    /// [those of every change](Broker#errors-of-every-call). None of the changes is made then, or with
    /// `OutcomeUnknown` perhaps all of them.
    ///
    /// ```
    /// use logmill_broker::{Broker, Config, CreateTopic, RequestContext, SettingChange};
    /// use logmill_log::env::block_on;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let config = Config::new(dir.path());
    /// let scheduler = config.env.scheduler.clone();
    /// let broker = Broker::open(config)?;
    /// let context = RequestContext::embedded();
    /// block_on(&*scheduler, broker.create_topic(&context, CreateTopic::new("readings")))?;
    ///
    /// let week = SettingChange::set("retention.ms", "604800000");
    /// let topic = block_on(&*scheduler, broker.alter_topic(&context, "readings", vec![week]))?;
    /// assert!(topic.settings.iter().any(|it| (it.name, &*it.value) == ("retention.ms", "604800000")));
    /// broker.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alter_topic(
        &self,
        context: &RequestContext,
        name: &str,
        changes: Vec<SettingChange>,
    ) -> impl Future<Output = Result<Topic, Error>> + Send + 'static + use<> {
        let allowed = authorize(context, &Operation::AlterTopic { topic: name });
        let name = name.to_owned();
        self.change(allowed, "the alteration of a topic", move |core| alter(core, &name, &changes))
    }

    /// Gives a topic more partitions, `count` in all. They are on disk when the answer comes. Records are not
    /// moved: from now on those of a key may go to another partition than before.
    ///
    /// # Errors
    /// [`PartitionCountInvalid`](crate::Reason::PartitionCountInvalid) unless there are more than before,
    /// [`TopicNotFound`](crate::Reason::TopicNotFound), [`LimitExceeded`](crate::Reason::LimitExceeded) also for too
    /// many partitions, and [those of every change](Broker#errors-of-every-call).
    pub fn add_partitions(
        &self,
        context: &RequestContext,
        name: &str,
        count: u32,
    ) -> impl Future<Output = Result<Topic, Error>> + Send + 'static + use<> {
        let allowed = authorize(context, &Operation::AddPartitions { topic: name });
        let checked = allowed.and_then(|()| check_count(self.core(), count)).map(drop);
        let name = name.to_owned();
        self.change(checked, "the growth of a topic", move |core| add_partitions(core, &name, count))
    }

    /// Lists topics in order of their names, a page at a time.
    ///
    /// # Errors
    /// [`RequestInvalid`](crate::Reason::RequestInvalid) for a page token that no answer gave.
    pub fn list_topics(
        &self,
        context: &RequestContext,
        request: ListTopics,
    ) -> impl Future<Output = Result<TopicPage, Error>> + Send + 'static + use<> {
        let page = authorize(context, &Operation::ListTopics)
            .and_then(|()| self.core().check_open())
            .and_then(|()| list(self.core(), request));
        std::future::ready(page)
    }

    /// Describes a topic and each of its partitions.
    ///
    /// # Errors
    /// [`TopicNotFound`](crate::Reason::TopicNotFound).
    pub fn describe_topic(
        &self,
        context: &RequestContext,
        name: &str,
    ) -> impl Future<Output = Result<TopicDescription, Error>> + Send + 'static + use<> {
        let topic = authorize(context, &Operation::DescribeTopic { topic: name })
            .and_then(|()| self.core().check_open())
            .and_then(|()| self.core().catalog.topic(name));
        let core = Arc::clone(self.core());
        self.core().look("a description", async move { Ok(describe(&core, &*topic?).await) })
    }

    /// Describes the node. Of a file system that does not answer within a second, the space is what it said before.
    ///
    /// # Errors
    /// [`IoFailed`](crate::Reason::IoFailed) if the file system does not say how much space it has.
    pub fn describe_node(
        &self,
        context: &RequestContext,
    ) -> impl Future<Output = Result<NodeDescription, Error>> + Send + 'static + use<> {
        let allowed = authorize(context, &Operation::DescribeNode).and_then(|()| self.core().check_open());
        let core = Arc::clone(self.core());
        let look = async move {
            allowed?;
            describe_node(&core).await
        };
        self.core().look("a description", look)
    }

    /// Runs `change` when those before it have ended.
    fn change<T, F>(
        &self,
        allowed: Result<(), Error>,
        doing: &'static str,
        change: F,
    ) -> impl Future<Output = Result<T, Error>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Core>) -> Result<T, Error> + Send + 'static,
    {
        let core = self.core();
        let held = allowed.and_then(|()| core.check_open()).and_then(|()| core.take_change(doing));
        let answer = held.map(|held| {
            let (sender, receiver) = reply();
            let core = Arc::clone(core);
            let changes = Arc::clone(&core.changes);
            changes.push(Box::new(move || {
                let outcome = change(&core);
                // Before the answer: whoever has it may open the directory again.
                drop((core, held));
                sender.send(outcome);
            }));
            receiver
        });
        async move { answer?.await.unwrap_or_else(|_| Err(Error::fault(doing))) }
    }
}
