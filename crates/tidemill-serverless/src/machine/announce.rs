//! Lifecycle events, for documents that ask for them (`document.metadata.lifecycleEvents: true`).

use bytes::Bytes;
use serde_json::{Value, json};

use super::Machine;
use super::memory::End;
use crate::document::{ROOT, TaskId};
use crate::duration::iso_time;

impl Machine<'_> {
    /// Something happened to the workflow.
    pub(super) fn announce_workflow(&mut self, what: &str, data: &Value) {
        self.announce(&format!("io.serverlessworkflow.workflow.{what}.v1"), data);
    }

    /// Something happened to a task; `more` stands beside its name.
    pub(super) fn announce_task(&mut self, what: &str, task: TaskId, more: (&str, Value)) {
        if !self.document.announces || task == ROOT {
            return;
        }
        let reference = self.task(task).map_or("", |task| task.reference.as_str());
        let mut data = json!({ "workflow": self.moment.scope.run.id, "task": reference });
        data[more.0] = more.1;
        self.announce(&format!("io.serverlessworkflow.task.{what}.v1"), &data);
    }

    pub(super) fn announce_end(&mut self, end: &End) {
        let mut data = json!({ "name": self.moment.scope.run.id });
        let what = match end {
            End::Output(output) => {
                data["completedAt"] = self.now();
                data["output"] = output.clone();
                "completed"
            }
            End::Fault(fault) => {
                data["faultedAt"] = self.now();
                data["error"] = fault.to_value();
                "faulted"
            }
        };
        self.announce_workflow(what, &data);
    }

    pub(super) fn started(&self) -> Value {
        let document = self.document;
        json!({
            "name": self.moment.scope.run.id,
            "definition": { "namespace": document.namespace, "name": document.name, "version": document.version },
            "startedAt": self.now(),
        })
    }

    pub(super) fn now(&self) -> Value {
        iso_time(self.moment.now_ms).into()
    }

    fn announce(&mut self, kind: &str, data: &Value) {
        if !self.document.announces {
            return;
        }
        let number = self.memory.next_event;
        self.memory.next_event += 1;
        let run = &self.moment.scope.run;
        let event = json!({
            "specversion": "1.0",
            "id": format!("{}-{number}", run.id),
            "source": format!("tidemill:{}", run.workflow),
            "type": kind,
            "time": self.now(),
            "data": data,
        });
        self.publish.push(Bytes::from(event.to_string()));
    }
}
