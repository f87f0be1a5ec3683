"""One run of Claude Code, in print mode, with an empty environment and a home of its own.

Whatever it might want from elsewhere goes to a proxy that is not there.
"""

import json
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from support import Journal, Recorder, equal


@dataclass
class Around:
    """What all runs share."""

    program: str
    work: Path
    journal: Journal
    recorder: Recorder
    # What starts the program, if it is not started by itself.
    prefix: tuple = ()


class Session:
    """One run of the program, in a folder of its own or in that of an earlier run."""

    def __init__(self, around, prompt, auth, *more, home=None):
        self.around = around
        self.before, self.sent_before = around.journal.mark(), around.recorder.mark()
        self.home = home or around.work / uuid.uuid4().hex[:8]
        self.folder = self.home / "project"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prompt = prompt
        self.errors = self.home / "stderr"
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "ANTHROPIC_BASE_URL": around.recorder.url,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "CLAUDE_CODE_MAX_RETRIES": "3",
            "IS_SANDBOX": "1",
            # Nobody listens there: nothing can leave the machine.
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1,localhost",
        } | auth
        command = [*around.prefix, around.program, "-p", "--output-format", "stream-json", "--verbose", *more]
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors.open("wb"),
        )
        self.events = []

    def ask(self, file=None):
        """Sends the prompt and waits for the end."""
        if file:
            (self.folder / file[0]).write_text(file[1])
        try:
            out, _ = self.process.communicate(self.prompt.encode(), timeout=120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, _ = self.process.communicate()
            raise AssertionError(f"it did not end within 120 s: {self.told(out)}") from None
        self.events = [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]
        results = [event for event in self.events if event["type"] == "result"]
        equal(len(results), 1, f"results ({self.told(out)})")
        self.result = results[0]
        return self

    def told(self, out):
        return f"exit code {self.process.returncode}, {out[-600:]!r}, {self.errors.read_bytes()[-600:]!r}"

    def answered(self, text):
        equal((self.result["is_error"], self.result.get("result")), (False, text), "result")
        equal(self.process.returncode, 0, "exit code")
        return self

    def tool_results(self):
        """The text of every tool result that the program sent back into the conversation."""
        found = []
        for event in self.events:
            content = event["message"]["content"] if event["type"] == "user" else []
            found += [json.dumps(block["content"]) for block in content if block.get("type") == "tool_result"]
        return found

    def blocks(self):
        """What the model said, as the program shows it."""
        said = [event["message"]["content"] for event in self.events if event["type"] == "assistant"]
        return [block for content in said for block in content]

    def arrived(self, path="/v1/messages"):
        """The turns that reached the upstream."""
        return [entry for entry in self.around.journal.entries(self.before) if entry.path == path]

    def sent(self):
        requests = self.around.recorder.since(self.sent_before)
        return [request for request in requests if request.target.startswith("/v1/messages")]


def says(script):
    return f"Please do what is asked. [[sim {script}]]"
