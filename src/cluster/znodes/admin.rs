//! `/admin/delete_topics/T`: a wish to delete T. Made empty by the broker that handles DeleteTopics or by tools,
//! deleted by the controller once the topic is gone.

pub(crate) const DELETE_TOPICS: &str = "/admin/delete_topics";

pub(crate) fn delete_topic_path(topic: &str) -> String {
    format!("{DELETE_TOPICS}/{topic}")
}
