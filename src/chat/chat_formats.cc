#include "chat/chat_formats.h"

namespace contexture {
namespace {

// A newline after a block tag goes with it, one after }} stays. Formats without a system role refuse it, and
// ChatTemplate then gives its text to the first user message.
constexpr ChatFormat kFormats[] = {
    {"chatml", "Qwen, SmolLM 2, Yi, Hermes",
     R"({% for m in messages %}
<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %})"},
    {"llama2", "Llama 2",
     R"({% set ns = namespace(system='') %}
{% for m in messages %}
{% if m.role == 'system' %}
{% set ns.system = '<<SYS>>\n' ~ m.content ~ '\n<</SYS>>\n\n' %}
{% elif m.role == 'user' %}
{{ bos_token }}[INST] {{ ns.system ~ m.content | trim }} [/INST]
{%- set ns.system = '' %}
{% else %} {{ m.content | trim }} {{ eos_token }}
{%- endif %}
{% endfor %})"},
    {"llama3", "Llama 3, 3.1, 3.2, 3.3",
     R"({{ bos_token }}
{%- for m in messages %}
<|start_header_id|>{{ m.role }}<|end_header_id|>

{{ m.content | trim }}<|eot_id|>
{%- endfor %}
{% if add_generation_prompt %}
<|start_header_id|>assistant<|end_header_id|>

{% endif %})"},
    {"mistral", "Mistral 7B v0.1 to v0.3, Mixtral",
     R"({{ bos_token }}
{%- for m in messages %}
{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]
{%- elif m.role == 'assistant' %} {{ m.content | trim }}{{ eos_token }}
{%- else %}{{ raise_exception('this format has no role ' ~ m.role) }}
{%- endif %}
{% endfor %})"},
    {"mistral-nemo", "Mistral Nemo, Ministral",
     R"({{ bos_token }}
{%- for m in messages %}
{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]
{%- elif m.role == 'assistant' %}{{ m.content }}{{ eos_token }}
{%- else %}{{ raise_exception('this format has no role ' ~ m.role) }}
{%- endif %}
{% endfor %})"},
    {"gemma", "Gemma 1, 2, 3",
     R"({{ bos_token }}
{%- for m in messages %}
{% if m.role == 'system' %}{{ raise_exception('this format has no role system') }}{% endif %}
<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}
{{ m.content | trim }}<end_of_turn>
{% endfor %}
{% if add_generation_prompt %}
<start_of_turn>model
{% endif %})"},
    {"phi3", "Phi-3, Phi-3.5, Phi-4-mini",
     R"({% for m in messages %}
<|{{ m.role }}|>
{{ m.content }}<|end|>
{% endfor %}
{% if add_generation_prompt %}
<|assistant|>
{% endif %})"},
    {"phi4", "Phi-4",
     R"({% for m in messages %}
<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>
{%- endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant<|im_sep|>
{%- endif %})"},
    {"zephyr", "Zephyr, TinyLlama",
     R"({% for m in messages %}
<|{{ m.role }}|>
{{ m.content }}{{ eos_token }}
{% endfor %}
{% if add_generation_prompt %}
<|assistant|>
{% endif %})"},
    {"granite", "Granite 3, 4",
     R"({% for m in messages %}
<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>
{% endfor %}
{% if add_generation_prompt %}
<|start_of_role|>assistant<|end_of_role|>
{%- endif %})"},
    {"deepseek", "DeepSeek V2.5, V3, R1",
     R"({{ bos_token }}
{%- for m in messages %}
{% if m.role == 'user' %}<｜User｜>{{ m.content }}
{%- elif m.role == 'assistant' %}<｜Assistant｜>{{ m.content }}{{ eos_token }}
{%- else %}{{ m.content }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}<｜Assistant｜>{% endif %})"},
    {"plain", "models that never learned a format",
     R"({% for m in messages %}
{% if m.role == 'system' %}
{{ m.content }}

{% else %}
{{ m.role | capitalize }}: {{ m.content | trim }}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
Assistant:
{%- endif %})"},
};

}  // namespace

std::span<const ChatFormat> chat_formats() {
  return kFormats;
}

const ChatFormat* find_chat_format(std::string_view name) {
  for (const ChatFormat& format : kFormats) {
    if (format.name == name) return &format;
  }
  return nullptr;
}

}  // namespace contexture
