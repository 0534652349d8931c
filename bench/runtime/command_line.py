"""Words that a user types after `./run`, put such that snakemake reads them as they were meant.

Needs nothing but Python.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent.parent
DEFAULT = ROOT / "workflows" / "config" / "digits.yaml"
DRY = {"-n", "--dry-run", "--dryrun"}
VERBOSE = "--verbose"
# options by which a user chooses what snakemake says
VIEWS = {"--logger", "--quiet", "-q", "--printshellcmds", "-p", "--debug-dag", "--show-failed-logs"}
# options of snakemake that are read here, and what to write after them
STUDY, SETTINGS = ("--configfile", "--configfiles"), ("--config", "-C")
FOLDER, PROFILE, ALSO = ("--directory", "-d"), ("--workflow-profile",), ("--also",)
GIVE = {
    STUDY: "give a study's file, such as workflows/config/fashion.yaml",
    SETTINGS: "give key=value, such as device=cpu; a study's file goes after --configfile",
    FOLDER: "give a folder",
    ALSO: "give suites that are not core, such as --also=classify,ladders",
    PROFILE: "give a profile's folder, such as profiles/slurm",
}


def stop(message: object) -> NoReturn:
    """One line and out."""
    sys.exit(f"error: {message}")


def places(name: str) -> tuple[Path, Path]:
    """Where a name of the command line may lie: where the user is, or beside this program."""
    return Path(name).absolute(), ROOT / name


def find(option: str, name: str) -> Path:
    """A file of the command line."""
    file = next((place for place in places(name) if place.is_file()), None)
    if file is None:
        stop(f"{option} {name}: no such file")
    try:
        str(file).encode()
    except UnicodeEncodeError:
        stop(f"{option} {name}: its name is no UTF-8; rename it")
    return file


def find_profile(name: str) -> Path | str:
    """A profile's folder: where the user is, or beside this program. Snakemake passes over one that
    is not there, and would run here what was meant for a cluster."""
    for folder in places(name):
        if (folder / "config.yaml").is_file() or any(folder.glob("config.v*.yaml")):
            return folder
    if name == "none":  # snakemake's own word for no profile
        return name
    stop(f"--workflow-profile {name}: no folder with a config.yaml; {GIVE[PROFILE]}")


def no_study_among(words: list[str], option: str) -> None:
    """Stop where a study's file stands without its option: no job makes it."""
    for before, word in zip(["", *words], words):
        owned = before.startswith("-") and before not in DRY  # by an option that takes a word
        if word.endswith((".yaml", ".yml")) and not word.startswith("-") and not owned:
            if any(place.is_file() for place in places(word)):
                stop(f"{word}: a study's file goes after {option}")
            if "=" not in word:
                stop(f"{word}: no such file; a study's file goes after {option}")


def is_setting(word: str) -> bool:
    """key=value, as snakemake's --config takes it, and no file with an equals sign."""
    return "=" in word and not word.startswith("-") and not Path(word).is_file()


def take_group(
    words: list[str], options: tuple[str, ...], belongs: Callable[[str, list[str]], bool]
) -> tuple[list[str], list[str], list[str]]:
    """Split off an option that takes words, in each of its spellings.

    Returns its words, those that follow it without belonging to it, which are targets, and the
    others.
    """
    taken, targets, rest, at = [], [], [], 0
    while at < len(words):
        option, equals, value = words[at].partition("=")
        at += 1
        if option not in options:
            rest.append(words[at - 1])
            continue
        group = [value] if value else []
        while at < len(words) and not words[at].startswith("-") and belongs(words[at], group):
            group.append(words[at])
            at += 1
        if not group:
            stop(f"{option}: nothing is given; {GIVE[options]}")
        taken += group
        while at < len(words) and not words[at].startswith("-"):
            targets.append(words[at])
            at += 1
    return taken, targets, rest


def one_study(word: str, group: list[str]) -> bool:
    """The first word after --configfile is a study, and more only where they look like one."""
    return not group or (word.endswith((".yaml", ".yml")) and Path(word).is_file())


def only_one(word: str, group: list[str]) -> bool:
    """One word, and what follows it is a target."""
    return not group


def take_view(words: list[str]) -> list[str]:
    """Words with which snakemake says one line a job; with `--verbose`, in a dry run, and where the
    user chooses what it says, all its lines. After all others but those behind `--`: targets stand
    in front."""
    rest = [word for word in words if word != VERBOSE]
    options = {word.partition("=")[0] for word in words}
    if options & (DRY | VIEWS | {VERBOSE}):
        return rest
    cut = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:cut], "--logger=job-lines", *rest[cut:]]


def arranged(words: list[str]) -> tuple[list[str], Path]:
    """Words for snakemake, and the folder to work in.

    Targets may follow --configfile and --config, which snakemake itself would take for more files
    and settings. Files are found from where the user is. Stops with one line for a word that cannot
    be right.
    """
    cut = words.index("--") if "--" in words else len(words)
    words, last = words[:cut], words[cut:]
    studies, targets, words = take_group(words, STUDY, one_study)
    settings, more, words = take_group(words, SETTINGS, lambda word, group: is_setting(word))
    targets += more
    folders, more, words = take_group(words, FOLDER, only_one)
    targets += more
    if len(studies) > 1:
        stop(f"--configfile: {len(studies)} studies given; run one at a time")
    no_study_among(targets, "--configfile")
    no_study_among(words, "--configfile")
    place = Path(folders[-1]).absolute() if folders else ROOT
    place.mkdir(parents=True, exist_ok=True)
    profiles, more, words = take_group(words, PROFILE, only_one)
    targets += more
    options = [f"--workflow-profile={find_profile(name)}" for name in profiles]
    options += [f"--configfile={find('--configfile', name)}" for name in studies]
    options += ["--config", *settings] if settings else []
    # snakemake wants all targets in one place: in front, before any option that would take them for
    # its own
    dry = [word for word in words if word in DRY]
    words = [word for word in words if word not in DRY]
    return [*targets, *words, *dry, *options, *last], place


def take_also(words: list[str]) -> list[str]:
    """`--also=SUITE,SUITE` as snakemake's `--config also=SUITE,SUITE`, beside what else stands
    there."""
    taken, targets, rest = take_group(words, ALSO, only_one)
    if not taken:
        return words
    setting, rest = f"also={','.join(taken)}", [*rest, *targets]
    for at, word in enumerate(rest[:-1]):
        if word == "--config" and is_setting(rest[at + 1]):
            return [*rest[: at + 1], setting, *rest[at + 1 :]]
    return [*rest, "--config", setting]


def take_config(words: list[str]) -> tuple[Path, list[str]]:
    """Split off `--config FILE`; returns the study's file and the other words.

    `--config key=value` is a word for snakemake.
    """
    studies, targets, words = take_group(words, STUDY, one_study)
    rest, at = targets, 0
    while at < len(words):
        option, equals, value = words[at].partition("=")
        given: str | None = None
        if equals:
            given = value
        elif at + 1 < len(words):
            given = words[at + 1]
        if option != "--config" or (given is not None and is_setting(given)):
            rest.append(words[at])
            at += 1
            continue
        if not given or (given.startswith("-") and not equals):
            stop("--config: give the study's file, such as workflows/config/fashion.yaml")
        # to snakemake a word that begins so is an option
        studies.append(f"./{given}" if given.startswith("-") else given)
        at += 1 if equals else 2
    if len(studies) > 1:
        stop(f"--config: {len(studies)} studies given; run one at a time")
    no_study_among(rest, "--config")
    return (find("--config", studies[0]) if studies else DEFAULT), rest
