"""A Spark standalone cluster on this machine: master, worker and history server, each a JVM of its own."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

from .process import Process, free_ports, wait_until

# A JVM on a busy two-core machine takes its time.
START_SECONDS_MAX = 90.0
# One executor of this size runs the example with room to spare.
WORKER_MEMORY = "2g"
DAEMON_MEMORY = "512m"


class SparkCluster:
    """Started by `start`, stopped by process id."""

    def __init__(self, home: Path, work: Path, settings: Path | None, jvm_options: str, event_log: str, keep: bool = False) -> None:
        self.home, self.work, self.settings, self.event_log, self.keep = home, work, settings, event_log, keep
        self.jvm_options = jvm_options
        self.master_port, self.master_ui, self.worker_ui, self.history_ui = free_ports(4)
        self.processes: list[Process] = []

    @property
    def master(self) -> str:
        return f"spark://127.0.0.1:{self.master_port}"

    @property
    def history(self) -> str:
        return f"http://127.0.0.1:{self.history_ui}"

    def start(self) -> "SparkCluster":
        master = self._daemon("master", "org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", str(self.master_port),
                              "--webui-port", str(self.master_ui))  # fmt: skip
        wait_until("the Spark master is up", lambda: self._json(f"http://127.0.0.1:{self.master_ui}/json/"), START_SECONDS_MAX, master)
        worker = self._daemon("worker", "org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--webui-port", str(self.worker_ui),
                              "--memory", WORKER_MEMORY, "--work-dir", str(self.work / "worker"), self.master)  # fmt: skip
        history = self._daemon("history", "org.apache.spark.deploy.history.HistoryServer", *(["--properties-file", str(self.settings)] if self.settings else []))
        wait_until("the Spark worker has registered", self._has_worker, START_SECONDS_MAX, worker)
        wait_until("the history server is up", lambda: self._json(f"{self.history}/api/v1/applications") is not None, START_SECONDS_MAX, history)
        return self

    def applications(self) -> list[dict]:
        """What the history server knows: it read this from the event log on the store."""
        return self._json(f"{self.history}/api/v1/applications") or []

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.stop()
        self.processes.clear()

    def release(self) -> None:
        for process in self.processes:
            process.release()

    def _daemon(self, name: str, main_class: str, *arguments: str) -> Process:
        history = f"-Dspark.history.fs.logDirectory={self.event_log} -Dspark.history.ui.port={self.history_ui} -Dspark.history.fs.update.interval=2s"
        env = {
            **os.environ,
            "SPARK_HOME": str(self.home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_DAEMON_MEMORY": DAEMON_MEMORY,
            "SPARK_DAEMON_JAVA_OPTS": self.jvm_options,
            "SPARK_HISTORY_OPTS": history,
        }
        argv = [str(self.home / "bin/spark-class"), main_class, *arguments]
        process = Process(f"spark {name}", argv, self.work / f"{name}.log", env=env, cwd=self._folder(), keep=self.keep)
        self.processes.append(process)
        return process

    def _folder(self) -> Path:
        self.work.mkdir(parents=True, exist_ok=True)
        return self.work

    def _has_worker(self) -> bool:
        state = self._json(f"http://127.0.0.1:{self.master_ui}/json/")
        return bool(state) and any(w.get("state") == "ALIVE" for w in state.get("workers", []))

    @staticmethod
    def _json(url: str):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError, TimeoutError, ValueError):
            return None
