"""What the documents promise is run, and what must not be in the repository is not."""

import functools
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from batchlab import cli

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README.ja.md")
MANAGERS = ("docs/manager.md", "docs/manager.ja.md")
ALONE = "docs/sampler-and-optimizer.md"
BIG = "docs/big-data.md"
CLUSTER = "docs/cluster.md"
PAGES_TO_RUN = ("docs/engineer.md", "docs/researcher.md", MANAGERS[0], BIG, CLUSTER)
PAGES = (*PAGES_TO_RUN, MANAGERS[1], ALONE, "docs/devices.md")
STAND_INS = {"my_training.py": "lightning_task.py", "my_finetuning.py": "huggingface_task.py"}
"""The reader's own files, as which examples serve."""

# Written as patterns that do not match themselves.
PRIVATE = re.compile(
    r"[/]work/|[/]root/|[/]home/\w|[/]Users/\w|[/]tmp/[a-z]|[/]opt/(pypi|wheels)|C:[\\]Users"
    r"|pypi[.]org|pythonhosted[.]org|npmjs[.](org|com)|deb[.]debian[.]org|crates[.]io"
    r"|download[.]pytorch[.]org"
)


def text(name):
    return (ROOT / name).read_text("utf-8")


def blocks(name, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text(name), re.DOTALL | re.MULTILINE)


def commands(name):
    """Every command line in a document, without its comment."""
    lines = "".join(blocks(name, "sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if shlex.split(line, comments=True)]


def tracked():
    """Files that are, or would be, committed."""
    git = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    done = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [
        path
        for path in map(ROOT.joinpath, filter(None, done.stdout.split("\0")))
        if path.is_file()
    ]


def private(content):
    """Lines that name a machine's folders or a registry's host."""
    return [line for line in content.splitlines() if PRIVATE.search(line)]


def test_no_file_names_a_machine_path_or_a_registry_host():
    found = {
        p.relative_to(ROOT).as_posix(): private(p.read_text("utf-8", "ignore")) for p in tracked()
    }
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "see " + "/wor" + "k/main/x",
        "--index-url https://" + "pypi" + ".org/simple",
        "/ho" + "me/ann/data",
        "/tm" + "p/abc.json",
    ],
)
def test_a_planted_machine_path_is_found(line):
    assert private(line) == [line]


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    assert f"\nversion: {version}\n" in text("CITATION.cff")


@pytest.mark.parametrize("name", [*READMES, "CONTRIBUTING.md"])
def test_every_make_target_named_exists(name):
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    named = {command[1] for command in commands(name) if command[0] == "make"}
    assert named
    assert named <= targets


@pytest.mark.parametrize("name", [*READMES, "CONTRIBUTING.md", "CHANGELOG.md", *PAGES])
def test_every_linked_file_and_heading_exists(name):
    links = re.findall(r"\]\(([^)]+)\)", text(name))
    local = [link for link in links if not link.startswith("https://")]
    assert [link for link in local if not leads_somewhere(name, link)] == []


def leads_somewhere(name, link):
    """Whether the file is there, and the heading if one is named."""
    path, _, anchor = link.partition("#")
    target = (ROOT / name).parent / path if path else ROOT / name
    if not (target.exists() and anchor):
        return target.exists()
    headings = re.findall(r"^#+ (.+)", target.read_text("utf-8"), re.MULTILINE)
    return anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]


@pytest.mark.parametrize("link", ["nothing.md", "researcher.md#nothing"])
def test_a_planted_dead_link_is_found(link):
    assert not leads_somewhere("docs/engineer.md", link)


@pytest.mark.parametrize("name", PAGES)
def test_every_page_leads_to_every_other(name):
    others = {Path(page).name for page in PAGES} - {Path(name).name}
    assert others <= set(re.findall(r"\]\(([^)#]+)\)", text(name)))


@pytest.mark.parametrize(("english", "japanese"), [READMES, MANAGERS])
def test_both_languages_show_the_same_commands(english, japanese):
    assert commands(english)
    assert commands(english) == commands(japanese)


def outline(name):
    """Headings, list entries, rows of tables, pictures and percentages, in order."""
    found = re.finditer(r"^(#+ |- |\d\. |\||!)|([\d.]+) ?%", text(name), re.MULTILINE)
    return [match[1] or match[2] for match in found]


def test_both_manager_pages_have_the_same_parts_and_percentages():
    english, japanese = map(outline, MANAGERS)
    assert len(english) > 30
    assert english == japanese


def test_both_readmes_show_the_same_code():
    without_comments = [
        [re.sub(r"\s*#.*|\"\"\".*?\"\"\"", "", block) for block in blocks(name, "python")]
        for name in READMES
    ]
    assert without_comments[0] == without_comments[1]


def run(arguments, folder):
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path):
    """In the order of the page, in one folder; advice is only planned (`make demo` gives it)."""
    mine = [command for command in commands("README.md") if command[0] == "batchlab"]
    assert mine
    for _, name, *rest in mine:
        planned = ["--dry-run"] if name in ("advise", "demo") else []
        run([sys.executable, "-m", "batchlab", name, *rest, *planned], tmp_path)


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path):
    programs = blocks("README.md", "python")
    assert programs
    for number, program in enumerate(programs):
        script = tmp_path / f"example_{number}.py"
        script.write_text(program, "utf-8")
        run([sys.executable, str(script)], tmp_path)


@pytest.mark.parametrize("name", [*PAGES_TO_RUN, ALONE])
def test_every_command_of_a_page_is_understood(name, monkeypatch):
    """By the parser alone: nothing is measured."""
    heard = []
    for command, function in cli.COMMANDS.items():
        monkeypatch.setitem(cli.COMMANDS, command, hearing(function, heard))
    mine = [words[1:] for words in commands(name) if words[0] == "batchlab"]
    for words in mine:
        cli.main(words)
    assert mine
    assert heard == [words[0] for words in mine]


def hearing(function, heard):
    """A command with the same arguments that only notes its name."""

    @functools.wraps(function)
    def noted(*args, **kwargs):
        heard.append(function.__name__)

    return noted


@pytest.mark.parametrize(
    "name", [ALONE, *(pytest.param(name, marks=pytest.mark.slow) for name in PAGES_TO_RUN)]
)
def test_the_blocks_of_a_page_run(name, tmp_path):
    """Commands in the order of the page, then its Python as one program, all in one folder."""
    for own, example in STAND_INS.items():
        shutil.copy(ROOT / "examples" / example, tmp_path / own)
    program = []
    for block in blocks(name, "python"):
        named = re.match(r"# (\w+\.py)\n", block)
        if named:
            (tmp_path / named[1]).write_text(block, "utf-8")
        else:
            program.append(block)
    for words in commands(name):
        run(shortened(words), tmp_path)
    if program:
        (tmp_path / "page.py").write_text("\n".join(program), "utf-8")
        run([sys.executable, "page.py"], tmp_path)


def shortened(words):
    """The command with a minute of budget made a second, and the demo with a budget."""
    if words[0] != "batchlab":
        assert words[0] == "python"
        return [sys.executable, *words[1:]]
    if words[1:] == ["demo"]:
        words = shlex.split("batchlab advise digits --price-per-hour 1.2 --budget 20m")
    seconds = [re.sub(r"^(\d+)m$", r"\1s", word) for word in words[1:]]
    return [sys.executable, "-m", "batchlab", *seconds]
