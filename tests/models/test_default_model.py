"""The default model, as fetched and converted, is the one its makers trained."""

import pytest

from reasonalloc.profile import LayerProfile
from reasonserve.config import DEFAULT_MODEL
from reasonserve.models.fingerprint import fingerprint
from reasonserve.models.profiles import shipped_profile
from reasonserve.models.resolve import resolve_model

pytestmark = pytest.mark.engine


def test_it_knows_the_capital_of_france() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve_model(DEFAULT_MODEL)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    assert "Paris" in tokenizer.decode(output[0, prompt["input_ids"].shape[1] :])


def test_its_layer_profile_ships_with_the_package() -> None:
    model_fingerprint = fingerprint(resolve_model(DEFAULT_MODEL))
    shipped = shipped_profile(model_fingerprint)
    assert shipped is not None
    profile = LayerProfile.from_json(shipped)
    profile.check_fits(30, 3, model_fingerprint)
    assert profile.to_json() == shipped
    assert shipped_profile("0" * 16) is None
