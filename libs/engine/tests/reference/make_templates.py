"""Chat templates with the constructs of published families, and what transformers makes of conversations with them.

    python make_templates.py > templates.json

The templates are written for this test: each does, in its own words, what the templates of a family do to a conversation
(slices from behind, namespaces, attribute filters, roles that are renamed or merged, tools that are asked for and absent).
"""
import json
import pathlib

from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer

# As Llama 3.1: the system turn is taken off the front, has a date of its own, and is there even if empty; turns of tools.
LLAMA = """\
{{- bos_token }}
{%- if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}
{%- if not tools_first is defined %}
    {%- set tools_first = true %}
{%- endif %}
{%- if not day is defined %}
    {%- set day = "1 May 2025" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set rules = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set rules = "" %}
{%- endif %}
{{- "<|head|>system<|/head|>\\n\\n" }}
{%- if builtin is defined or tools is not none %}
    {{- "Tools: " + (tools | length | string) + "\\n" }}
{%- endif %}
{{- "Day: " + day + "\\n\\n" }}
{{- rules }}
{{- "<|turn_end|>" }}
{%- for m in messages %}
    {%- if not (m.role == 'ipython' or m.role == 'tool' or 'tool_calls' in m) %}
        {{- '<|head|>' + m['role'] + '<|/head|>\\n\\n'+ m['content'] | trim + '<|turn_end|>' }}
    {%- elif m.role == "tool" or m.role == "ipython" %}
        {{- "<|head|>ipython<|/head|>\\n\\n" }}
        {%- if m.content is mapping or (m.content is iterable and m.content is not string) %}
            {{- m.content | tojson }}
        {%- else %}
            {{- m.content }}
        {%- endif %}
        {{- "<|turn_end|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\\n\\n' }}
{%- endif %}
"""

# As Qwen2.5: a system turn that is there anyway, and answers of tools that are gathered into one turn of the user.
QWEN2 = """\
{%- if tools %}
    {{- '[start]system\\n' }}
    {%- for tool in tools %}{{ tool | tojson }}{% endfor %}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '[start]system\\n' + messages[0]['content'] + '[end]\\n' }}
    {%- else %}
        {{- '[start]system\\nYou help.[end]\\n' }}
    {%- endif %}
{%- endif %}
{%- for m in messages %}
    {%- if (m.role == "user") or (m.role == "system" and not loop.first) or (m.role == "assistant" and not m.tool_calls) %}
        {{- '[start]' + m.role + '\\n' + m.content + '[end]' + '\\n' }}
    {%- elif m.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '[start]user' }}
        {%- endif %}
        {{- '\\n[answer]\\n' }}
        {{- m.content }}
        {{- '\\n[/answer]' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '[end]\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '[start]assistant\\n' }}
{%- endif %}
"""

# As Qwen3: the last question is looked for from behind, and thoughts before it are left out.
QWEN3 = """\
{%- set ns = namespace(searching=true, last_question=messages|length - 1) %}
{%- for m in messages[::-1] %}
    {%- set at = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and m.role == "user" and m.content is string and not(m.content.startswith('[answer]') and m.content.endswith('[/answer]')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_question = at %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- if m.content is string %}
        {%- set content = m.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (m.role == "user") or (m.role == "system" and not loop.first) %}
        {{- '[start]' + m.role + '\\n' + content + '[end]\\n' }}
    {%- elif m.role == "system" %}
        {{- '[start]system\\n' + content + '[end]\\n' }}
    {%- elif m.role == "assistant" %}
        {%- set thought = '' %}
        {%- if m.thought is string %}
            {%- set thought = m.thought %}
        {%- else %}
            {%- if '[/think]' in content %}
                {%- set thought = content.split('[/think]')[0].rstrip('\\n').split('[think]')[-1].lstrip('\\n') %}
                {%- set content = content.split('[/think]')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_question and (loop.last or (not loop.last and thought)) %}
            {{- '[start]' + m.role + '\\n[think]\\n' + thought.strip('\\n') + '\\n[/think]\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '[start]' + m.role + '\\n' + content }}
        {%- endif %}
        {{- '[end]\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '[start]assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '[think]\\n\\n[/think]\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

# As Mistral: turns must alternate, the system turn stands before the last question, the end of text after each answer.
MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set rules = messages[0]["content"] %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set questions = turns | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for m in turns | rejectattr("role", "equalto", "tool") %}
    {%- if not (m.tool_calls is defined and m.tool_calls is not none) %}
        {%- if (m["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("after the system turn, user and assistant take turns") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for m in turns %}
    {%- if m["role"] == "user" %}
        {%- if tools is not none and (m == questions[-1]) %}
            {{- "[TOOLS]" }}
        {%- endif %}
        {%- if m == questions[-1] and rules is defined %}
            {{- "[ASK] " + rules + "\\n\\n" + m["content"] + "[/ASK]" }}
        {%- else %}
            {{- "[ASK] " + m["content"] + "[/ASK]" }}
        {%- endif %}
    {%- elif m["role"] == "assistant" %}
        {{- " " + m["content"]|trim + eos_token}}
    {%- elif m["role"] == "tool" %}
        {%- if m.content is defined and m.content.content is defined %}
            {%- set content = m.content.content %}
        {%- else %}
            {%- set content = m.content %}
        {%- endif %}
        {{- '[ANSWER] {"content": ' + content|string + "}[/ANSWER]" }}
    {%- else %}
        {{- raise_exception("users, assistants and tools alone speak") }}
    {%- endif %}
{%- endfor %}
"""

# As Gemma 3: the assistant is called the model, and the system turn is the beginning of the first user's.
GEMMA = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set before = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set before = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set before = "" -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for m in turns -%}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("user and assistant take turns") }}
    {%- endif -%}
    {%- if (m['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = m['role'] -%}
    {%- endif -%}
    {{ '(begin)' + role + '\\n' + (before if loop.first else "") }}
    {%- if m['content'] is string -%}
        {{ m['content'] | trim }}
    {%- elif m['content'] is iterable -%}
        {%- for item in m['content'] -%}
            {%- if item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("not a kind of content") }}
    {%- endif -%}
    {{ '(end)\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'(begin)model\\n'}}
{%- endif -%}
"""

TEMPLATES = {"llama3": LLAMA, "qwen2": QWEN2, "qwen3": QWEN3, "mistral": MISTRAL, "gemma3": GEMMA}


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


CHATS = [
    turns(("user", " What is 2 + 2? \n")),
    turns(("system", " Be brief.\n"), ("user", "Hi"), ("assistant", "\n Hello 😀 "), ("user", "Go\non"), ("assistant", "é")),
    turns(("user", "a"), ("assistant", "[think]\nWhy?\n[/think]\n\nOne"), ("user", "b"), ("assistant", "[think]\n\nHm\n[/think]\nTwo")),
    turns(("user", "a"), ("assistant", "[think]x[/think]b"), ("user", "[answer]5[/answer]"), ("assistant", "[think]\ny[/think]c")),
    turns(("user", "time?"), ("tool", "12:00"), ("tool", "{\"zone\": 1}"), ("assistant", "Noon.")),
    # Some refuse these: two of a role in a row, and a role that nobody has.
    turns(("user", "a"), ("user", "b")),
    turns(("user", "a"), ("robot", "b")),
]


def main():
    tokenizer = AutoTokenizer.from_pretrained(str(pathlib.Path(__file__).parent / "tiny"))
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    parts = []
    for name, source in TEMPLATES.items():
        texts = []
        for messages in CHATS:
            for prompt in (False, True):
                try:
                    text = tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False, add_generation_prompt=prompt)
                except TemplateError:
                    text = None
                texts.append(text)
        parts.append({"name": name, "source": source, "texts": texts})
    lines = lambda values: "[\n" + ",\n".join(json.dumps(value) for value in values) + "\n]"
    print(f'{{"chats": {lines(CHATS)},\n"templates": {lines(parts)}}}')


main()
