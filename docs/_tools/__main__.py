"""`python -m docs._tools COMMAND`: what the Makefile calls."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from docs._tools.guide import LANGUAGES, Guide
from docs._tools.problems import Stop, stop_if


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m docs._tools")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="check the sources; nothing runs")
    run = commands.add_parser("run", help="run notebooks that are not in the cache")
    run.add_argument(
        "stems", nargs="*", help="only pages whose key ends so, cached or not"
    )
    run.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    run.add_argument("--record", help="write what ran where as JSON")
    site = commands.add_parser(
        "site", help="check, run, build both languages into site/"
    )
    site.add_argument("--gpu-record", help="JSON of `run --device cuda --record`")
    site.add_argument("--pdf", action="store_true", help="print the bank as PDF, too")
    serve = commands.add_parser("serve", help="serve both languages, rebuild on edits")
    serve.add_argument("--port", type=int, default=8000)
    books = commands.add_parser("notebooks", help="write the downloadable notebooks")
    books.add_argument("folder")
    stamp = commands.add_parser("stamp", help="say that a translation is up to date")
    stamp.add_argument("keys", nargs="*", help="page keys; none: those not stamped yet")
    new = commands.add_parser("new", help="make the files of a new page")
    new.add_argument("kind", choices=["question", "implementation", "application"])
    new.add_argument("stem", help="theme/stem or room/stem; an application has no room")
    exercise = commands.add_parser("exercise", help="write an exercise to work on")
    exercise.add_argument("stem", help="the page's stem, such as gqa")
    exercise.add_argument("--language", choices=LANGUAGES, default=LANGUAGES[0])
    commands.add_parser("budget", help="print the table of weights and times")
    options = parser.parse_args(argv)
    guide = Guide()
    try:
        return _do(options, guide) or 0
    except Stop as stop:
        print(stop, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _do(options: argparse.Namespace, guide: Guide) -> int | None:
    # Imported here: each command loads only what it needs, so that `check` is quick.
    if options.command == "check":
        from docs._tools.site import check_all

        stop_if(check_all(guide))
        print("the sources are in order")
    elif options.command == "run":
        return _run(options, guide)
    elif options.command == "site":
        from docs._tools.site import build

        print(f"built {build(guide, gpu_record=options.gpu_record, pdf=options.pdf)}")
    elif options.command == "serve":
        from docs._tools.serve import serve

        serve(guide, options.port)
    elif options.command == "notebooks":
        from docs._tools.downloads import write_all

        print(f"wrote {write_all(guide, Path(options.folder))} notebooks")
    elif options.command == "stamp":
        from docs._tools.parity import stamp_keys

        stamp_keys(guide, options.keys)
    elif options.command == "new":
        from docs._tools.new import make

        make(guide, options.kind, options.stem)
    elif options.command == "exercise":
        from docs._tools.practice import write

        print(write(guide, options.stem, options.language))
    elif options.command == "budget":
        from docs._tools.budget import report

        return report(guide)
    return None


def _run(options: argparse.Namespace, guide: Guide) -> int:
    from docs._tools.execute import Runner

    runner = Runner(guide, options.device)
    chosen = None
    if options.stems:
        chosen = [
            page
            for key, page in runner.pages().items()
            if any(key.endswith(stem) for stem in options.stems)
        ]
        if not chosen:
            raise Stop(f"no page with code ends in {' or '.join(options.stems)}")
    problems = runner.run(chosen)
    if options.record:
        Path(options.record).write_text(json.dumps(record(runner), indent=1), "utf-8")
    stop_if(problems)
    print(
        f"{len(runner.pages()) - len(runner.stale())} of {len(runner.pages())} pages "
        f"have outputs of {runner.environment['device']}"
    )
    return 0


def record(runner) -> dict:
    """Return {page: device, versions, commit, seconds} of what the cache holds."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        cwd=runner.guide.root,
        check=False,
    ).stdout.strip()
    made = {}
    for key, page in runner.pages().items():
        if (notebook := runner.cached(page)) is not None:
            about = notebook.metadata["guide"]
            made[key] = {
                name: about[name] for name in ("device", "torch", "python", "seconds")
            }
            made[key]["commit"] = commit
    return made


if __name__ == "__main__":
    sys.exit(main())
