//! What the OpenAPI documents say of callers: the security scheme, and the answers of those who are refused.

use axum::http::Method;
use serde_json::{Value, json};

use crate::auth::access::{Access, find};
use crate::auth::{Auth, Needs};

/// Writes what each operation asks of its callers: the security scheme, and the answers of those who are refused.
pub(crate) fn secure(document: &mut Value, table: &[Access], auth: &Auth) {
    document["components"]["securitySchemes"]["token"] = json!({
        "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
        "description": "A token of the issuer that the service trusts. A user's token reaches what is the user's own; a \
            scope that ends with `:any` reaches everybody's.",
    });
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object_mut().into_iter().flatten() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).ok();
            let Some(needs) = method.and_then(|method| find(table, &method, path)) else { continue };
            secure_operation(operation, needs, auth);
        }
    }
}

fn secure_operation(operation: &mut Value, needs: Needs, auth: &Auth) {
    operation["security"] = match (auth.asks(needs), needs.scope()) {
        // A token is not needed, and not looked at.
        (false, None) => json!([]),
        (false, Some(_)) => json!([{}, { "token": [] }]),
        (true, _) => json!([{ "token": [] }]),
    };
    // Many tools know scopes in `security` only for the flows of OAuth.
    if let Some(scope) = needs.scope() {
        let description = operation["description"].as_str().unwrap_or_default();
        operation["description"] = format!("{description}\n\nThe token needs the scope `{scope}`.").trim_start().into();
    }
    let Some(scope) = needs.scope().filter(|_| auth.asks(needs)) else { return };
    let refused = |description: String, content: &Value| json!({ "description": description, "content": content });
    let content = json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
    let responses = &mut operation["responses"];
    responses["401"] = refused("The request has no token, or one that is not accepted.".to_owned(), &content);
    responses["403"] = refused(format!("The token lacks the scope `{scope}`, or `{scope}:any`."), &content);
    for status in ["401", "403"] {
        let challenge = json!({ "schema": { "type": "string" }, "description": "RFC 6750." });
        responses[status]["headers"]["www-authenticate"] = challenge;
    }
}
