use super::*;
use tidemill_tool::Context;

async fn rendered(input: &Value) -> Result<String, ToolError> {
    rendered_within(Settings::default(), input).await
}

async fn rendered_within(settings: Settings, input: &Value) -> Result<String, ToolError> {
    let tool = Arc::new(TemplateRender::new(settings));
    let call = Call { input: Payload::json(input.to_string()), context: Context::default() };
    let output = tool.call(call).await?;
    output.parse().map_err(|error| ToolError::new(ErrorClass::Internal, "test", error.to_string()))
}

#[tokio::test]
async fn a_template_is_rendered_with_its_data() -> Result<(), ToolError> {
    let input = json!({
        "template": "Hello {{ name | upper }}{% for n in list if n > 1 %}, {{ loop.index }}:{{ n + 1 }}{% endfor %}{% if list is defined and 'x' not in name %}!{% endif %}{% set all = list | join('-') %} {{ all ~ '.' }} {{ {'a': [1]} | tojson }} {{ list | sum }}",
        "data": {"name": "Ada", "list": [1, 2, 3]},
    });
    assert_eq!(rendered(&input).await?, "Hello ADA, 1:3, 2:4! 1-2-3. {\"a\": [1]} 6");
    Ok(())
}

#[tokio::test]
async fn values_are_escaped_when_asked_and_the_templates_own_text_never() -> Result<(), ToolError> {
    let input = |escape: &str| json!({"template": "<b>{{ x }}</b>{% set y %}<i>{{ x }}</i>{% endset %}{{ y }}", "data": {"x": "<&"}, "escape": escape});
    assert_eq!(rendered(&input("html")).await?, "<b>&lt;&amp;</b><i>&lt;&amp;</i>");
    assert_eq!(rendered(&input("none")).await?, "<b><&</b><i><&</i>");
    Ok(())
}

#[tokio::test]
async fn a_template_that_fails_names_the_line() {
    for (template, part) in [
        ("a\n{{ missing }}", "line 2"),
        ("{% if %}", "line 1"),
        ("{{ x | nothing }}", "filter nothing is unknown"),
        ("{% include 'x' %}", "line 1"),
        ("{% macro m() %}{% endmacro %}", "line 1"),
        ("{{ debug() }}", "line 1"),
        ("{{ 'x' * 3 }}", "text is not multiplied"),
        ("{{ 3 * ('x' ~ 'y') }}", "text is not multiplied"),
        ("{{ [1] * 3 }}", "text is not multiplied"),
        ("{{ 2 * 3 * -('x') }}", "text is not multiplied"),
        ("{{ ('' ~ x) * 3 }}", "only numbers are multiplied"),
    ] {
        let error = rendered(&json!({"template": template, "data": {"x": 1}})).await.err();
        let message = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(message.starts_with("template_failed") && message.contains(part), "{template}: {message}");
    }
}

/// Each would take hours or all memory; each must end soon, by its budget.
#[tokio::test]
async fn template_bombs_end_by_their_budget() {
    let double =
        |step: &str, seed: &str| format!("{{% set a = {seed} %}}{}{{{{ a | length }}}}", step.repeat(60));
    let bombs = [
        double("{% set a = a ~ a %}", "'xxxxxxxxxx'"),
        double("{% set a = a + a %}", "'xxxxxxxxxx'"),
        double("{% set a = a + a %}", "[1, 2]"),
        double("{% set a = [a, a] %}", "[1]") + "{{ a }}",
        double("{% set a = {'x': a, 'y': a} %}", "1") + "{{ a == a }}",
        double("{% set a %}{{ a }}{{ a }}{% endset %}", "'xxxxxxxxxx'"),
        double("{% set a = a | replace('x', 'xxxx') %}", "'x'"),
        double("{% set a = [a, a, a, a] | join(a) %}", "'x'"),
        double("{% with b = a ~ a %}{% set a = b ~ b %}{% endwith %}", "'x'") + "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}".to_owned(),
        format!("{}x{}", "{% for a in [[1,1]] %}".to_owned() + &"{% for a in [[a,a]] %}".repeat(60), "{% endfor %}".repeat(61)),
        "{% for i in range(90000) %}{{ range(90000) | list | sort | length }}{% endfor %}".to_owned(),
        "{{ range(100000) | map('string') | join(range(100000) | join) | length }}".to_owned(),
        "{% for i in range(20000) %}{% set b %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }}{% endset %}{{ b }}{% endfor %}".to_owned(),
        "{% set ns = namespace() %}".to_owned(),
        "{% for x in [1] recursive %}{{ loop([x, x]) }}{% endfor %}".to_owned(),
    ];
    for bomb in bombs {
        // Small, so that the test is quick in a debug build too.
        let settings = Settings { max_work: 2_000_000, max_fuel: 50_000, ..Settings::default() };
        let error = rendered_within(settings, &json!({"template": bomb})).await.err();
        let code = error.as_ref().map(|error| error.code.as_ref());
        let expected = bomb.contains("namespace") || bomb.contains("recursive");
        assert_eq!(
            code,
            Some(if expected { "template_failed" } else { "template_limit" }),
            "{bomb}: {error:?}"
        );
    }
}

#[tokio::test]
async fn an_input_that_does_not_fit_is_refused_by_name() {
    for (input, part) in [
        (json!({"template": "x", "templat": 1}), "templat"),
        (json!({"data": {}}), "template"),
        (json!({"template": "x", "escape": "xml"}), "xml"),
        (json!({"template": "x".repeat(70_000)}), "max_template_bytes"),
    ] {
        let error = rendered(&input).await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with("invalid_input") && error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn numbers_are_multiplied_wherever_they_stand() -> Result<(), ToolError> {
    let template = "{{ 2 * x.a[0] }} {{ x['b c'] * (1 + 2) }} {{ (x['b c'] + 1) * 2 }} {{ [1, 2][1] * 3 }} {{ 'n' ~ 2 * -3 }}";
    assert_eq!(
        rendered(&json!({"template": template, "data": {"x": {"a": [4], "b c": 5}}})).await?,
        "8 15 12 6 n-6"
    );
    Ok(())
}

/// Each would exhaust the stack of the thread, and so end the process, if it came to the compiler.
#[tokio::test]
async fn long_and_deep_templates_are_refused_before_they_are_compiled() {
    let pieces = [
        "1+",
        "x+",
        "x~",
        "x|abs|",
        "x.",
        "x==",
        "x and ",
        "not ",
        "x[",
        "x(",
        "-",
        "x if x else ",
        "'a'~",
        "[",
        "{1:",
        "(",
    ];
    let chains = pieces.iter().map(|piece| format!("{{{{ {}x }}}}", piece.repeat(60_000 / piece.len())));
    let tails = ["|abs", ".x", "[0]", "+1", "(1)", " is odd"]
        .iter()
        .map(|piece| format!("{{{{ x{} }}}}", piece.repeat(8_000)));
    let blocks = [
        "{% if x %}",
        "{% for y in x %}",
        "{% with %}",
        "{% set y %}",
        "{% filter abs %}",
        "{% autoescape 'html' %}",
        "{% if x %}{% else %}",
    ]
    .iter()
    .map(|block| block.repeat(60_000 / block.len()));
    let elifs = std::iter::once(format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(5_000)));
    for template in chains.chain(tails).chain(blocks).chain(elifs) {
        let error = rendered(&json!({"template": template, "data": {"x": 1}})).await.err();
        let start: String = template.chars().take(24).collect();
        assert_eq!(error.map(|error| error.code), Some("template_failed".into()), "{start}");
    }
}
