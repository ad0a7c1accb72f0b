import pytest

from slurm.redaction import is_secret_name, redacted

HIDDEN = [
    ("export WANDB_API_KEY=abc", "export WANDB_API_KEY=***"),
    ("export AWS_SECRET_ACCESS_KEY=a/b+c HF_TOKEN=d", "export AWS_SECRET_ACCESS_KEY=*** HF_TOKEN=***"),
    ('FOO_TOKEN="x y" cmd --flag', "FOO_TOKEN=*** cmd --flag"),
    ("FOO_TOKEN='x y'; cmd", "FOO_TOKEN=***; cmd"),
    (r"FOO_TOKEN=x\ y cmd", "FOO_TOKEN=*** cmd"),
    ('FOO_TOKEN="x \\" y" cmd', "FOO_TOKEN=*** cmd"),
    ("A_KEY=a\"b c\"d'e f' cmd", "A_KEY=*** cmd"),
    ('SSH_KEY="-----BEGIN\nabc\nEND" cmd\nnext', "SSH_KEY=*** cmd\nnext"),
    ('A_KEY="never closed\nnext', "A_KEY=***\nnext"),
    ("TOKENS=(a b); next", "TOKENS=***; next"),
    ("TOKENS[0]=a; TOKENS+=b", "TOKENS[0]=***; TOKENS+=***"),
    ("PASSWORD='$ecret'", "PASSWORD=***"),
    ("PASSWORD=$5ecret", "PASSWORD=***"),
    ("A_TOKEN=$USER-abc", "A_TOKEN=***"),
    ("A_TOKEN=${OTHER:-abc}", "A_TOKEN=***"),
    ("A_TOKEN=${A_TOKEN:-abc}; : ${B_KEY:=a b}", "A_TOKEN=${A_TOKEN:-***}; : ${B_KEY:=***}"),
    ("sbatch --export=ALL,HF_TOKEN=abc job.sh", "sbatch --export=ALL,HF_TOKEN=*** job.sh"),
    ("cmd --password=abc --x=1", "cmd --password=*** --x=1"),
    ("cmd --token abc -v", "cmd --token *** -v"),
    ("cmd --token \\\n  'a b' -v", "cmd --token \\\n  *** -v"),
    ("cmd -apiKey abc wandb.api_key=abc", "cmd -apiKey *** wandb.api_key=***"),
    ("Authorization: Bearer abc", "Authorization: Bearer ***"),
    ('curl -H "Authorization: Bearer abc" -H "X: y"', 'curl -H "Authorization: Bearer ***" -H "X: y"'),
    ('curl -H "Authorization:Basic abc" u', 'curl -H "Authorization:Basic ***" u'),
    ("curl -H 'X-Api-Key:abc def' u", "curl -H 'X-Api-Key:***' u"),
    ("""echo '{"token": "abc", "x": 1}'""", """echo '{"token": ***, "x": 1}'"""),
    ("A_TOKEN=$(curl -H 'X-Api-Key: abc' u)", "A_TOKEN=$(curl -H 'X-Api-Key: ***' u)"),
    ('bash -c "export TOKEN=abc; cmd" "x y"', 'bash -c "export TOKEN=***; cmd" "x y"'),
    ("bash -c 'TOKEN=\"a b\" cmd' 'x y'", "bash -c 'TOKEN=*** cmd' 'x y'"),
    ('ssh host "export TOKEN=\\"a b\\"; cmd"', 'ssh host "export TOKEN=***; cmd"'),
    ('env "HF_TOKEN=abc def" cmd', 'env "HF_TOKEN=***" cmd'),
    ("bash -c \"curl -H 'X-Api-Key: a b' u\"", 'bash -c "curl -H \'X-Api-Key: ***"'),
    ("cmd  # don't write A_KEY='b c'", "cmd  # don't write A_KEY=***"),
    ("git clone https://user:pass@host/a", "git clone https://user:***@host/a"),
    ("X=postgresql://user:p@ss@host/a", "X=postgresql://user:***@host/a"),
    ("git clone https://abc@host/a", "git clone https://***@host/a"),
    ("curl 'https://host/a?token=abc&n=1'", "curl 'https://host/a?token=***&n=1'"),
    ("wandb login --relogin abc", "wandb login --relogin ***"),
    ("notify hf_abcdefghijklmnopqrst", "notify ***"),
]

UNTOUCHED = [
    "module load cuda/12.1",
    "export OMP_NUM_THREADS=4",
    "source ~/keys/env.sh",
    "export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True",
    "export TOKENIZERS_PARALLELISM=false AUTHOR=me KEYBOARD=us MONKEY=1",
    "export HF_TOKEN=$HF_TOKEN",
    'A_TOKEN="${HF_TOKEN}" B_TOKEN=${HF_TOKEN:?not set} C_TOKEN=${C_TOKEN:-$HF_TOKEN} cmd',
    'export HF_TOKEN=$(cat ~/.token) A_KEY="$(pass show "a (b)")" B_KEY=`cat b`',
    "cmd --token $HF_TOKEN --password=${PW} --auth=$USER:$PW",
    "cmd --use-token --verbose",
    'curl -H "Authorization: Bearer $HF_TOKEN" u',
    "git clone https://oauth2:${TOKEN}@host/a https://$TOKEN@host/b",
    "git clone ssh://git@host/a git@host:b https://host:8080/a@b",
    'env "HF_TOKEN=$HF_TOKEN" cmd',
    'bash -c "HF_TOKEN=$HF_TOKEN cmd"',
    "HF_TOKEN= cmd",
    '[ "$TOKEN" = abc ] && [[ $KEY==abc ]] && echo ${KEY:0:3}',
    "cd $PWD && PWD=/x OLDPWD=/y singularity exec --pwd /work image",
    "python -m pytest tests/test_auth.py::test_token",
    "#SBATCH --time=1:00:00 --export=NONE",
    "",
]


@pytest.mark.parametrize(("line", "expected"), HIDDEN)
def test_secret_values_are_hidden_and_nothing_else(line, expected):
    assert redacted(line) == expected


@pytest.mark.parametrize("line", UNTOUCHED)
def test_references_and_ordinary_lines_stay_as_they_are(line):
    assert redacted(line) == line


def test_lines_are_independent_of_one_another():
    pairs = [pair for pair in HIDDEN if "never closed" not in pair[0]] + [(line, line) for line in UNTOUCHED]
    lines, expected = zip(*pairs, strict=True)
    assert redacted("\n".join(lines)) == "\n".join(expected)


@pytest.mark.parametrize("line", [expected for _, expected in HIDDEN])
def test_what_is_hidden_stays_as_it_is(line):
    assert redacted(line) == line


@pytest.mark.timeout(20)
@pytest.mark.parametrize("opening", ["$((((", "A_KEY=$(((", '"', "'A_KEY=", "a-b.c", "${", "https://a:", "\\"])
def test_a_long_hostile_line_takes_no_time(opening):
    redacted("A_KEY=" + opening * 2000)


SECRET_NAMES = [
    *("HF_TOKEN", "token", "api_key", "apiKey", "x-api-key", "GH_TOKEN2", "AWS_SECRET_ACCESS_KEY", "MYSQL_PWD"),
    *("db.password", "PGPASSWORD", "CREDENTIALS_FILE", "basic_auth", "PassWord", "PASSWD", "SECRETS"),
]
PLAIN_NAMES = [
    *("PWD", "pwd", "OLDPWD", "TOKENIZERS_PARALLELISM", "AUTHOR", "MONKEY", "KEYBOARD", "compass", "secretary"),
    *("OMP_NUM_THREADS", "cuda", "x", ""),
]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_name_is_secret_by_one_of_its_words(name):
    assert is_secret_name(name)


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_a_name_that_only_looks_like_one_is_not_secret(name):
    assert not is_secret_name(name)
