"""ProSparse: LLaMA with FATReLU, under a model type of its own."""

from models.architectures import llama
from models.architectures.family import Family

FAMILY = Family(("sparsellama",), ("SparseLlamaForCausalLM",), llama.read_spec, llama.names, llama.IGNORED)
