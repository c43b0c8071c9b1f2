//! The Services of the roles that serve clients.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube_core::ResourceExt;
use pulse_core::defaults;
use pulse_crd::PulseIngest;
use pulse_crd::names::{self, Role};

/// Port at which a role serves clients.
pub(super) const fn client_port(role: Role) -> Option<u16> {
    match role {
        Role::Api => Some(defaults::API_PORT),
        Role::Console => Some(defaults::CONSOLE_PORT),
        Role::Worker | Role::Scheduler => None,
    }
}

/// The Service of a role that serves clients.
pub(super) fn service(cr: &PulseIngest, role: Role) -> Option<Service> {
    let (component, port) = (role.component(), client_port(role)?);
    Some(Service {
        metadata: names::metadata(cr, names::child(cr, component), component),
        spec: Some(ServiceSpec {
            selector: Some(names::selector(&cr.name_any(), component)),
            ports: Some(vec![ServicePort {
                name: Some("http".into()),
                port: i32::from(port),
                target_port: Some(IntOrString::String("http".into())),
                protocol: Some("TCP".into()),
                app_protocol: role.tls(&cr.spec).map(|_| "https".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    })
}
