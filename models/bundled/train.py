"""Train the bundled model: a small ReLU LLaMA on the source text of the Python standard library.

    python -m models.bundled.train prepare  --work DIR            corpus, split, tokenizer
    python -m models.bundled.train run      --work DIR --steps N  train, checkpointing; call again to go on
    python -m models.bundled.train export   --work DIR            write config, weights and tokenizer here

The model below is the training twin of `models/transformer.py`: same equations, but written for autograd and
for whole sequences. It is a `LlamaForCausalLM` with `hidden_act: relu`; a test holds the exported files to
Hugging Face's implementation of it.

The learning rate warms up, stays flat, and falls to zero over the last `--decay` steps, so that a run may be
stopped and resumed with another `--steps` before the fall begins without changing what came before it.
Matrices are trained with Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon), the rest with AdamW.
A penalty on the activations keeps them sparse; its weight follows the measured density (see `Penalty`).
"""

import argparse
import gzip
import hashlib
import json
import lzma
import platform
import sysconfig
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

HERE = Path(__file__).parent
END_OF_TEXT = "<|endoftext|>"
SPLIT = r"\n+| ?[^\W\d]+| ?\d{1,3}| ?[^\s\w]+|[^\S\n]+(?!\S)|[^\S\n]+"
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


@dataclass(frozen=True, slots=True)
class Shape:
    vocab: int = 4096
    hidden: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    neurons: int = 1024
    context: int = 1024
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


@dataclass(frozen=True, slots=True)
class Recipe:
    seed: int = 20261123
    batch: int = 4  # sequences of `context` tokens per step
    warmup: int = 60
    matrix_rate: float = 0.02
    vector_rate: float = 0.004
    weight_decay: float = 0.02
    momentum: float = 0.95
    target_density: float = 0.11  # share of neurons with a non-zero activation that the penalty steers to
    clip: float = 1.0


# ---------------------------------------------------------------------------------------------- corpus


# Half a megabyte of reStructuredText in one literal: the manual, not source.
NOT_SOURCE = {Path("pydoc_data/topics.py")}


def standard_library() -> list[Path]:
    """Source files of this Python's standard library, tests left out, relative to it and sorted."""
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"test", "tests", "idle_test", "site-packages", "__pycache__"}
    files = (path.relative_to(root) for path in root.rglob("*.py"))
    return sorted(
        path for path in files if not left_out & set(path.parts) and not path.parts[0].startswith("config-") and path not in NOT_SOURCE
    )


def is_held_out(path: Path) -> bool:
    """About one file in twenty, chosen by a hash of its name so that every Python version agrees."""
    return hashlib.sha256(path.as_posix().encode()).digest()[0] < 13


def read_text(path: Path) -> str:
    return (Path(sysconfig.get_paths()["stdlib"]) / path).read_text(encoding="utf-8", errors="strict")


def readable(paths: list[Path]) -> dict[Path, str]:
    texts = {}
    for path in paths:
        try:
            texts[path] = read_text(path)
        except UnicodeDecodeError:
            print(f"left out (not UTF-8): {path}")
    return texts


def train_tokenizer(texts: list[str], vocab: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def prepare(work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    texts = readable(standard_library())
    training = {path: text for path, text in texts.items() if not is_held_out(path)}
    held_out = {path: text for path, text in texts.items() if is_held_out(path)}
    tokenizer = train_tokenizer(list(training.values()), Shape().vocab)
    tokenizer.save(str(work / "tokenizer.json"))
    hashes = {path.as_posix(): hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}
    lines = [f"{digest}  {'held-out' if is_held_out(Path(name)) else 'training'}  {name}" for name, digest in hashes.items()]
    (work / "corpus.sha256").write_text(f"# {platform.python_implementation()} {platform.python_version()}\n" + "\n".join(lines) + "\n")
    (work / "held_out.txt").write_text("".join(f"{path.as_posix()}\n" for path in held_out))
    for name, part in (("training", training), ("held_out", held_out)):
        tokens = encode_documents(tokenizer, list(part.values()))
        np.save(work / f"{name}.npy", tokens)
        size = sum(len(text.encode()) for text in part.values())
        print(f"{name}: {len(part)} files, {size:,} bytes, {len(tokens):,} tokens, {size / len(tokens):.2f} bytes a token")


def encode_documents(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    start = tokenizer.token_to_id(END_OF_TEXT)
    ids = [token for text in texts for token in (start, *tokenizer.encode(text).ids)]
    return np.asarray(ids, dtype=np.uint16)


# ----------------------------------------------------------------------------------------------- model


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv = shape.kv_heads * shape.head_dim
        self.input_layernorm = nn.RMSNorm(shape.hidden, shape.norm_eps)
        self.q_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)
        self.k_proj = nn.Linear(shape.hidden, kv, bias=False)
        self.v_proj = nn.Linear(shape.hidden, kv, bias=False)
        self.o_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, shape.norm_eps)
        self.gate_proj = nn.Linear(shape.hidden, shape.neurons, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.neurons, bias=False)
        self.down_proj = nn.Linear(shape.neurons, shape.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, T, H] -> the next state, the mean gate activation, and the share of neurons that fire."""
        x = x + self.attention(self.input_layernorm(x), cos, sin)
        y = self.post_attention_layernorm(x)
        gate = F.relu(self.gate_proj(y))
        x = x + self.down_proj(gate * self.up_proj(y))
        return x, gate.mean(), (gate > 0).float().mean()

    def attention(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (part.view(b, t, -1, self.shape.head_dim).transpose(1, 2) for part in (self.q_proj(x), self.k_proj(x), self.v_proj(x)))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        repeat = self.shape.heads // self.shape.kv_heads
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        added: Tensor = self.o_proj(out.transpose(1, 2).reshape(b, t, -1))
        return added


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Model(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, shape.norm_eps)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)
        frequencies = shape.rope_theta ** -(torch.arange(0, shape.head_dim, 2) / shape.head_dim)
        angles = torch.outer(torch.arange(shape.context), frequencies)
        self.cos, self.sin = angles.cos(), angles.sin()  # [T, dim/2]

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, T] -> logits [B, T, V], mean gate activation [L], density [L]."""
        t = tokens.shape[1]
        x = self.embed(tokens)
        gates, densities = [], []
        for layer in self.layers:
            x, gate, density = layer(x, self.cos[:t], self.sin[:t])
            gates.append(gate)
            densities.append(density)
        return F.linear(self.norm(x), self.embed.weight), torch.stack(gates), torch.stack(densities)


# ------------------------------------------------------------------------------------------- optimiser


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: Muon's quintic Newton–Schulz iteration, in float32."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.T if g.shape[0] > g.shape[1] else g
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    turned: Tensor = x.T if g.shape[0] > g.shape[1] else x
    return turned


class Muon(torch.optim.Optimizer):
    """torch.optim.Muon iterates in bfloat16, which a CPU without bf16 instructions does 300 times slower than float32."""

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                buffer = state.setdefault("momentum", torch.zeros_like(parameter))
                buffer.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalise(parameter.grad.lerp(buffer, group["momentum"]))
                scale = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * scale)


class Penalty:
    """Weight of the mean gate activation, per layer, in the loss: 2 % up while a layer fires too densely, 2 % down else."""

    def __init__(self, layers: int, target: float) -> None:
        self.weight = torch.full((layers,), 1e-3)
        self.target = target

    def __call__(self, gates: Tensor) -> Tensor:
        weighted: Tensor = self.weight * gates
        return weighted.sum()

    def follow(self, densities: Tensor) -> None:
        self.weight *= torch.where(densities > self.target, 1.02, 1 / 1.02)
        self.weight.clamp_(1e-5, 1.0)


# ------------------------------------------------------------------------------------------------ run


def rate(step: int, steps: int, decay: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup, (steps - step) / decay)


def batches(tokens: np.ndarray, recipe: Recipe, context: int, step: int) -> Tensor:
    """The batch of one step: a function of the seed and the step alone, so a resumed run sees the same text."""
    starts = np.random.default_rng((recipe.seed, step)).integers(0, len(tokens) - context - 1, recipe.batch)
    return torch.from_numpy(np.stack([tokens[s : s + context + 1] for s in starts]).astype(np.int64))


@torch.no_grad()
def evaluate(model: Model, tokens: np.ndarray, limit: int | None = None) -> tuple[float, list[float]]:
    """Sum of -log2 p over `tokens`, in windows of half a context's stride, and the density of every layer."""
    context = model.shape.context
    bits, densities = 0.0, list[Tensor]()
    for start in range(0, len(tokens) - 1, context // 2):
        if limit is not None and len(densities) >= limit:
            break
        window = torch.from_numpy(tokens[start : start + context + 1].astype(np.int64))[None]
        logits, _, density = model(window[:, :-1])
        losses = F.cross_entropy(logits[0].float(), window[0, 1:], reduction="none")
        bits += float(losses[0 if start == 0 else context // 2 :].sum()) / np.log(2)
        densities.append(density)
    return bits, torch.stack(densities).mean(0).tolist()


def save(path: Path, state: dict[str, object]) -> None:
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)


def run(work: Path, steps: int, decay: int, compiled: bool) -> None:
    shape, recipe = Shape(), Recipe()
    torch.manual_seed(recipe.seed)
    tokens, held_out = np.load(work / "training.npy"), np.load(work / "held_out.npy")
    model = Model(shape)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = Muon(matrices, recipe.matrix_rate, recipe.momentum, recipe.weight_decay)
    adam = torch.optim.AdamW(others, recipe.vector_rate, betas=(0.9, 0.95), weight_decay=0.0)
    penalty, first, seconds = Penalty(shape.layers, recipe.target_density), 0, 0.0
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        muon.load_state_dict(state["muon"])
        adam.load_state_dict(state["adam"])
        penalty.weight, first, seconds = state["penalty"], state["step"], state["seconds"]
        if first > state["flat_until"]:
            assert steps == state["steps"], "the learning rate is already falling: --steps cannot change any more"
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters; steps {first}..{steps}", flush=True)
    forward = torch.compile(model) if compiled else model
    for step in range(first, steps):
        began = time.monotonic()
        factor = rate(step, steps, decay, recipe.warmup)
        muon.param_groups[0]["lr"], adam.param_groups[0]["lr"] = recipe.matrix_rate * factor, recipe.vector_rate * factor
        window = batches(tokens, recipe, shape.context, step)
        logits, gates, densities = forward(window[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        torch.autograd.backward(loss + penalty(gates))
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        muon.step()
        adam.step()
        model.zero_grad(set_to_none=True)
        penalty.follow(densities.detach())
        seconds += time.monotonic() - began
        if step % 10 == 0:
            print(f"step {step} loss {loss.item():.3f} fire {densities.mean().item():.3f} {time.monotonic() - began:.2f} s", flush=True)
        if (step + 1) % 50 == 0 or step + 1 == steps:
            bits, density = evaluate(model, held_out, limit=8)
            print(f"held-out {bits / (8 * 512 + 512):.3f} bits a token, fire {np.round(density, 3).tolist()}", flush=True)
            save(checkpoint, {"model": model.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict(), "penalty": penalty.weight,
                              "step": step + 1, "steps": steps, "flat_until": steps - decay, "seconds": seconds})  # fmt: skip


# --------------------------------------------------------------------------------------------- export


def hugging_face_name(name: str) -> str:
    for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
        name = name.replace(part, f"self_attn.{part}")
    for part in ("gate_proj", "up_proj", "down_proj"):
        name = name.replace(part, f"mlp.{part}")
    return "model." + name.replace("embed.", "embed_tokens.")


def config(shape: Shape, end_of_text: int | None) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "relu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.neurons,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "vocab_size": shape.vocab,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "bfloat16",
    }


def export(work: Path) -> None:
    state = torch.load(work / "checkpoint.pt", weights_only=True)
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    shape, recipe = Shape(), Recipe()
    weights = {hugging_face_name(name): value.to(torch.bfloat16).contiguous() for name, value in state["model"].items()}
    save_file(weights, HERE / "model.safetensors", metadata={"format": "pt"})
    (HERE / "config.json").write_text(json.dumps(config(shape, tokenizer.token_to_id(END_OF_TEXT)), indent=2) + "\n")
    (HERE / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": END_OF_TEXT,
                "eos_token": END_OF_TEXT,
                "add_bos_token": True,
                "model_max_length": shape.context,
                "clean_up_tokenization_spaces": False,
                "chat_template": CHAT_TEMPLATE,
            },
            indent=2,
        )
        + "\n"
    )
    for name in ("tokenizer.json", "corpus.sha256", "held_out.txt"):
        (HERE / name).write_bytes((work / name).read_bytes())
    model = Model(shape)
    model.load_state_dict({name: value.to(torch.bfloat16).float() for name, value in state["model"].items()})
    held_out = np.load(work / "held_out.npy")
    bits, densities = evaluate(model, held_out)
    text = b"".join(read_text(Path(line)).encode() for line in (work / "held_out.txt").read_text().splitlines())
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": state["step"],
        "tokens_seen": state["step"] * recipe.batch * shape.context,
        "training_seconds": round(state["seconds"]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "held_out_bytes": len(text),
        "held_out_bits_per_byte": round(bits / len(text), 4),
        "held_out_bits_per_byte_gzip_9": round(8 * len(gzip.compress(text, 9)) / len(text), 4),
        "held_out_bits_per_byte_xz_9": round(8 * len(lzma.compress(text, preset=9)) / len(text), 4),
        "held_out_sparsity": [round(1 - density, 4) for density in densities],
        "shape": asdict(shape),
        "recipe": asdict(recipe),
    }
    (HERE / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("verb", choices=("prepare", "run", "export"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--decay", type=int, default=400)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    match args.verb:
        case "prepare":
            prepare(args.work)
        case "run":
            run(args.work, args.steps, args.decay, args.compile)
        case "export":
            export(args.work)


if __name__ == "__main__":
    main()
