//! Attributes of a request to the API server, as RBAC checks them.

use http::{HeaderMap, Method, Uri};

/// Attributes of a request, as the API server's `RequestInfo` has them.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    /// HTTP method.
    pub method: Method,
    /// Path without the query.
    pub path: String,
    /// Query, not decoded.
    pub query: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`; the lower-case method for
    /// paths that are not resources.
    pub verb: String,
    /// Plural resource with its subresource, such as `deployments/scale`. Empty for other paths, such as `/readyz`.
    pub resource: String,
    /// Namespace; empty for cluster-scoped resources and requests across all namespaces.
    pub namespace: String,
    /// Object name; empty for a list.
    pub name: String,
    /// Content type of the body, which is the patch type of a patch.
    pub content_type: String,
}

impl RequestInfo {
    pub(super) fn new(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
        let content_type = headers.get(http::header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let mut call = Self {
            method: method.clone(),
            path,
            query,
            verb: method.as_str().to_lowercase(),
            resource: String::new(),
            namespace: String::new(),
            name: String::new(),
            content_type,
        };
        call.parse();
        call
    }

    fn parse(&mut self) {
        let parts: Vec<String> = self.path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let rest = match parts.as_slice() {
            ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] if !rest.is_empty() => rest,
            _ => return,
        };
        // `namespaces/x` is the namespace itself; with a longer path, `x` is the namespace of the resource.
        let rest = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && !is_subresource_of_namespaces(rest) => {
                self.namespace = (*namespace).to_owned();
                rest
            }
            rest => rest,
        };
        self.resource = rest.first().copied().unwrap_or_default().to_owned();
        self.name = rest.get(1).copied().unwrap_or_default().to_owned();
        if let Some(subresource) = rest.get(2) {
            self.resource = format!("{}/{subresource}", self.resource);
        }
        let one = !self.name.is_empty();
        let watches = self.query.split('&').any(|part| matches!(part, "watch" | "watch=true" | "watch=1"));
        let verb = match self.method {
            Method::GET if watches => "watch",
            Method::GET if one => "get",
            Method::GET => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if one => "delete",
            Method::DELETE => "deletecollection",
            _ => return,
        };
        verb.clone_into(&mut self.verb);
    }

    /// Whether the method can change an object.
    pub fn writes(&self) -> bool {
        !self.method.is_safe()
    }
}

fn is_subresource_of_namespaces(rest: &[&str]) -> bool {
    matches!(rest, ["status" | "finalize"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: Method, uri: &'static str) -> [String; 4] {
        let call = RequestInfo::new(&method, &Uri::from_static(uri), &HeaderMap::new());
        [call.verb, call.resource, call.namespace, call.name]
    }

    #[test]
    fn request_info_matches_rbac_attributes() {
        let group = "/apis/pulseboard.dev/v1alpha1/namespaces/here/pulseingests";
        assert_eq!(call(Method::GET, group), ["list", "pulseingests", "here", ""]);
        let watch = call(Method::GET, "/apis/apps/v1/deployments?resourceVersion=1&watch=true");
        assert_eq!(watch, ["watch", "deployments", "", ""]);
        let scale = call(Method::PATCH, "/apis/apps/v1/namespaces/here/deployments/it/scale");
        assert_eq!(scale, ["patch", "deployments/scale", "here", "it"]);
        assert_eq!(call(Method::DELETE, "/api/v1/namespaces/here"), ["delete", "namespaces", "", "here"]);
        let finalize = call(Method::PUT, "/api/v1/namespaces/here/finalize");
        assert_eq!(finalize, ["update", "namespaces/finalize", "", "here"]);
        assert_eq!(call(Method::POST, "/api/v1/namespaces/here/pods"), ["create", "pods", "here", ""]);
        assert_eq!(call(Method::DELETE, "/api/v1/namespaces/here/pods"), ["deletecollection", "pods", "here", ""]);
        assert_eq!(call(Method::GET, "/readyz"), ["get", "", "", ""]);
        assert_eq!(call(Method::GET, "/apis/apps/v1"), ["get", "", "", ""]);
    }
}
