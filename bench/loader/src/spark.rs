//! The requests of a small Spark job, one after the other: a write of two Parquet files through
//! S3A 3.3 with the FileOutputCommitter v1 (105 requests), then a read of them (21). Kinds and
//! counts are those that were seen from Spark 3.5: 40 LIST, 51 HEAD, 15 bulk deletes, 8 PUT,
//! 4 copies, 2 DELETE and 6 ranged GET. Most of it is S3A asking whether a path exists.

use anyhow::{Context, Result};
use http::Method;

use crate::content::{SMALL_BYTES, content};
use crate::request::{Body, Request, Target};
use crate::wire::{Connection, Keep};

/// Requests of a job.
const REQUESTS: usize = 126;
/// Tasks of the job; each writes one file.
const TASKS: usize = 2;
/// What a reader of a Parquet file asks for: the footer's length, the footer, a column.
const READS: [(usize, usize); 3] = [
    (SMALL_BYTES - 8, SMALL_BYTES - 1),
    (SMALL_BYTES - 1032, SMALL_BYTES - 1),
    (4, 2047),
];

/// One job, with the requests that it will send.
#[derive(Debug)]
pub(crate) struct Job {
    requests: Vec<Request>,
}

impl Job {
    /// Job number `index` below the path `prefix`; its folder is its own.
    pub(crate) fn new(bucket: &str, prefix: &str, index: usize) -> Self {
        let mut script = Script {
            bucket,
            folder: format!("{prefix}/job{index}"),
            requests: Vec::with_capacity(REQUESTS),
        };
        script.set_up();
        (0..TASKS).for_each(|task| script.write_file(task));
        (0..TASKS).for_each(|task| script.commit_task(task));
        script.commit_job();
        script.read_back();
        Self {
            requests: script.requests,
        }
    }

    /// Signs and sends the requests.
    ///
    /// # Errors
    /// At the first answer that is not the right one.
    pub(crate) async fn run(self, target: &Target, connection: &mut Connection) -> Result<()> {
        for (number, request) in self.requests.into_iter().enumerate() {
            let signed = target.sign(request)?;
            let sent = signed.send(connection, Keep::Count).await;
            sent.with_context(|| format!("request {number} of a Spark job"))?;
        }
        Ok(())
    }
}

/// The job as it is written down. Paths begin with a slash and name no bucket.
struct Script<'a> {
    bucket: &'a str,
    folder: String,
    requests: Vec<Request>,
}

/// The job's phases.
impl Script<'_> {
    fn set_up(&mut self) {
        let folder = self.folder.clone();
        (0..3).for_each(|_| self.status_of_folder(&folder));
        let temporary = format!("{folder}/_temporary/0");
        self.status_of_folder(&temporary);
        self.status_of_folder(&folder);
        self.put_marker(&temporary);
    }

    /// A task writes its file into the folder of its attempt.
    fn write_file(&mut self, task: usize) {
        let file = self.file_in(&self.attempt(task), task);
        self.create(&file, SMALL_BYTES);
    }

    /// The attempt's folder is renamed to the task's.
    fn commit_task(&mut self, task: usize) {
        let (attempt, committed) = (self.attempt(task), self.committed(task));
        let (from, to) = (self.file_in(&attempt, task), self.file_in(&committed, task));
        self.status_of_folder(&attempt);
        self.status_of_folder(&committed);
        self.status_of_folder(&attempt);
        self.status_of_folder(&committed);
        self.status_of_folder(&format!("{}/_temporary/0", self.folder));
        self.list_flat(&attempt);
        self.head(&from);
        self.head(&from);
        self.copy(&from, &to);
        self.delete_many(&[from]);
        self.delete_markers_above(&to);
        self.keep_parent(&attempt);
    }

    /// Each task's file is renamed to its last place; then `_temporary` goes and `_SUCCESS` comes.
    fn commit_job(&mut self) {
        let folder = self.folder.clone();
        self.list_folder(&format!("{folder}/_temporary/0"));
        for task in 0..TASKS {
            let committed = self.committed(task);
            let (from, to) = (self.file_in(&committed, task), self.file_in(&folder, task));
            self.status_of_folder(&folder);
            self.list_folder(&committed);
            self.status_of_nothing(&to);
            self.head(&from);
            self.status_of_nothing(&to);
            self.head(&from);
            self.head(&from);
            self.copy(&from, &to);
            self.delete(&from);
            self.delete_markers_above(&to);
            self.keep_parent(&committed);
        }
        let temporary = format!("{folder}/_temporary");
        self.status_of_folder(&temporary);
        self.list_flat(&temporary);
        self.delete_many(&[
            format!("{temporary}/0/_temporary/"),
            format!("{temporary}/0/"),
            format!("{temporary}/"),
        ]);
        self.create(&format!("{folder}/_SUCCESS"), 0);
        self.status_of_folder(&folder);
    }

    fn read_back(&mut self) {
        let folder = self.folder.clone();
        self.status_of_nothing(&format!("{folder}/_spark_metadata"));
        self.status_of_folder(&folder);
        self.list_folder(&folder);
        self.status_of_folder(&folder);
        for task in 0..TASKS {
            let file = self.file_in(&folder, task);
            (0..4).for_each(|_| self.head(&file));
            for (first, last) in READS {
                self.get_range(&file, first, last);
            }
        }
    }
}

/// What S3A makes of one call.
impl Script<'_> {
    /// `getFileStatus` of a folder: no such object, then what is below it.
    fn status_of_folder(&mut self, path: &str) {
        self.head_missing(path);
        self.list(path, "delimiter=%2F&list-type=2&max-keys=2");
    }

    /// `getFileStatus` of a path that does not exist takes the same requests.
    fn status_of_nothing(&mut self, path: &str) {
        self.status_of_folder(path);
    }

    /// `create` without overwriting.
    fn create(&mut self, path: &str, bytes: usize) {
        self.status_of_nothing(path);
        self.put(path, "application/octet-stream", bytes);
        self.delete_markers_above(path);
    }

    /// What a rename does for the folder that it took the last file from.
    fn keep_parent(&mut self, folder: &str) {
        let parent = parent(folder);
        self.status_of_folder(parent);
        self.put_marker(parent);
    }

    fn put_marker(&mut self, folder: &str) {
        self.put(&format!("{folder}/"), "application/x-directory", 0);
        self.delete_markers_above(folder);
    }

    /// The bulk delete that S3A sends behind each write: markers of all folders above.
    fn delete_markers_above(&mut self, path: &str) {
        let mut markers = Vec::new();
        let mut folder = parent(path);
        while !folder.is_empty() {
            markers.push(format!("{folder}/"));
            folder = parent(folder);
        }
        self.delete_many(&markers);
    }

    fn attempt(&self, task: usize) -> String {
        format!("{}/_temporary/0/_temporary/attempt_{task:06}", self.folder)
    }

    fn committed(&self, task: usize) -> String {
        format!("{}/_temporary/0/task_{task:06}", self.folder)
    }

    fn file_in(&self, folder: &str, task: usize) -> String {
        format!("{folder}/part-{task:05}-c000.snappy.parquet")
    }
}

/// Single requests.
impl Script<'_> {
    fn head(&mut self, path: &str) {
        self.requests.push(Request::new(Method::HEAD, path));
    }

    fn head_missing(&mut self, path: &str) {
        self.requests
            .push(Request::new(Method::HEAD, path).answers(404));
    }

    fn put(&mut self, path: &str, kind: &str, bytes: usize) {
        let request = Request::new(Method::PUT, path)
            .header("content-type", kind)
            .body(Body::Shared(content(0, bytes)));
        self.requests.push(request);
    }

    fn copy(&mut self, from: &str, to: &str) {
        let request = Request::new(Method::PUT, to)
            .header("x-amz-copy-source", format!("/{}{from}", self.bucket))
            .header("x-amz-metadata-directive", "REPLACE")
            .header("content-type", "application/octet-stream")
            .holding("CopyObjectResult");
        self.requests.push(request);
    }

    fn delete(&mut self, path: &str) {
        self.requests
            .push(Request::new(Method::DELETE, path).answers(204));
    }

    fn delete_many(&mut self, paths: &[String]) {
        self.requests.push(delete_many(paths));
    }

    fn get_range(&mut self, path: &str, first: usize, last: usize) {
        let request = Request::new(Method::GET, path)
            .header("range", format!("bytes={first}-{last}"))
            .answers(206)
            .with_length((last - first + 1) as u64);
        self.requests.push(request);
    }

    fn list_folder(&mut self, path: &str) {
        self.list(
            path,
            "delimiter=%2F&fetch-owner=false&list-type=2&max-keys=5000",
        );
    }

    fn list_flat(&mut self, path: &str) {
        self.list(path, "fetch-owner=false&list-type=2&max-keys=5000");
    }

    fn list(&mut self, path: &str, query: &str) {
        let prefix = moat_s3::uri::encode(
            path.trim_start_matches('/').as_bytes(),
            moat_s3::uri::Slash::Encode,
        );
        let request = Request::new(Method::GET, format!("?{query}&prefix={prefix}%2F"));
        self.requests.push(request.holding("ListBucketResult"));
    }
}

/// The path above, empty at the top.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// A quiet bulk delete. Paths begin with a slash and need no escaping in XML.
pub(crate) fn delete_many(paths: &[String]) -> Request {
    let keys = paths.iter().map(|path| path.trim_start_matches('/'));
    let objects: String = keys
        .map(|key| format!("<Object><Key>{key}</Key></Object>"))
        .collect();
    let document = format!("<Delete><Quiet>true</Quiet>{objects}</Delete>");
    Request::new(Method::POST, "?delete=").document(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_the_mix_that_was_measured() {
        let job = Job::new("b", "/x", 0);
        let count = |is: &dyn Fn(&Request) -> bool| job.requests.iter().filter(|r| is(r)).count();
        let is_copy = |r: &Request| {
            r.headers
                .iter()
                .any(|(name, _)| *name == "x-amz-copy-source")
        };
        let seen = [
            count(&|r| r.method == Method::GET && r.path.starts_with('?')),
            count(&|r| r.method == Method::HEAD),
            count(&|r| r.method == Method::POST),
            count(&|r| r.method == Method::PUT && !is_copy(r)),
            count(&is_copy),
            count(&|r| r.method == Method::DELETE),
            count(&|r| r.expect.status == 206),
        ];
        assert_eq!(seen, [40, 51, 15, 8, 4, 2, 6]);
        assert_eq!(job.requests.len(), REQUESTS);
    }

    #[test]
    fn parents_end_at_the_top() {
        assert_eq!(parent("/a/b"), "/a");
        assert_eq!(parent("/a"), "");
        assert_eq!(parent(""), "");
    }
}
