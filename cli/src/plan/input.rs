//! Files into objects: the configuration, and what it is used on.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use patina_controller_core::surroundings::{InUse, Surroundings, UsedBy};
use patina_controller_core::view::ServiceId;
use patina_crds::config::manifest::{self, Gaps, ManifestError};
use patina_crds::config::{self, Loaded, Resources};
use patina_crds::networks::Networks;
use patina_crds::selector::Labels;
use patina_crds::yaml::Limits;
use patina_speaker_core::view::{EndpointView, NodeView};

use super::objects::Objects;
use super::{Options, Problem, Source, complete};

/// Everything that a plan is made from.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// `None`: invalid, so nothing of it is in force.
    pub(super) config: Option<Loaded>,
    /// Of type LoadBalancer, in the order of the documents.
    pub(super) services: Vec<PlannedService>,
    /// Of every Service that has an EndpointSlice.
    pub(super) endpoints: BTreeMap<ServiceId, Vec<EndpointView>>,
    /// How many Services are in no EndpointSlice.
    pub(super) without_slices: usize,
    /// In the order of their names.
    pub(super) nodes: Vec<NodeView>,
    /// Labels by name, of every namespace that there is something in.
    pub(super) namespaces: BTreeMap<String, Labels>,
    pub(super) surroundings: Surroundings,
    pub(super) errors: Vec<Problem>,
    /// For people.
    pub(super) notes: Vec<String>,
}

/// A Service as the API server would have it.
#[derive(Debug)]
pub(super) struct PlannedService {
    pub(super) id: ServiceId,
    pub(super) object: Service,
    /// When it counts as created: seconds since 1970 where it says so; then, in their order, those that do not.
    pub(super) created: i64,
    /// For people.
    pub(super) notices: Vec<String>,
}

/// Reads everything; what is wrong is in [`Input::errors`].
pub(super) fn read(sources: &[Source], options: &Options) -> Input {
    let mut input = Input::default();
    let mut objects = Objects::default();
    let mut resources = Resources { namespace: options.namespace.clone(), ..Resources::default() };
    let mut gaps = Gaps::default();
    let mut of_config = Vec::new();
    let wanted =
        manifest::Options { namespace: options.namespace.clone(), legacy_name: options.legacy_name.clone() };
    for source in sources {
        let reading = manifest::read_all(&source.text, &wanted, Limits::OF_A_FILE);
        of_config.extend(reading.errors.into_iter().map(|error| problem(error, source)));
        of_config.extend(merge(&mut resources, reading.manifest.resources, source));
        gaps.extend(reading.gaps);
        let passed_over: BTreeSet<&str> = reading.others.iter().map(|other| other.note.as_str()).collect();
        let notes = reading.manifest.notes.iter().filter(|note| !passed_over.contains(note.as_str()));
        input.notes.extend(notes.map(|note| format!("{}: {note}", source.name)));
        for other in reading.others {
            objects.add(other, source, &options.service_namespace);
        }
    }

    objects.nodes.iter_mut().for_each(complete::node);
    input.nodes = objects.nodes.iter().map(patina_speaker::convert::node).collect();
    input.nodes.sort_by(|a, b| a.name.cmp(&b.name));
    match config::build(&resources) {
        Ok(loaded) => input.config = of_config.is_empty().then_some(loaded),
        Err(errors) => {
            let own = errors.0.into_iter().filter(|error| !gaps.explain(error));
            of_config.extend(own.map(Problem::of_config));
        }
    }
    input.errors = of_config;
    input.errors.append(&mut objects.errors);

    input.surroundings = surroundings(&objects, options);
    input.endpoints = patina_speaker::convert::endpoints(&objects.slices);
    input.services = services(std::mem::take(&mut objects.services), options);
    let without = |service: &&PlannedService| !input.endpoints.contains_key(&service.id);
    input.without_slices = input.services.iter().filter(without).count();
    input.namespaces = namespaces(&objects, &input.services);
    input
}

fn services(objects: Vec<Service>, options: &Options) -> Vec<PlannedService> {
    let created =
        |service: &Service| service.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
    let mut next = objects.iter().filter_map(created).max().unwrap_or(0);
    let planned = |mut object: Service| {
        let notices = complete::service(&mut object, &options.families);
        let created = created(&object).unwrap_or_else(|| {
            next += 1;
            next
        });
        PlannedService { id: patina_controller::convert::id(&object), object, created, notices }
    };
    objects.into_iter().map(planned).collect()
}

fn surroundings(objects: &Objects, options: &Options) -> Surroundings {
    let networks: BTreeMap<String, Networks> =
        objects.states.iter().filter_map(patina_controller::surroundings::networks).collect();
    let cidrs: &[ServiceCIDR] = &objects.service_cidrs;
    let mut found = patina_controller::surroundings::surroundings(&objects.nodes, cidrs, &networks);
    let given = options.service_cidrs.iter();
    found.uses.extend(given.map(|range| InUse { range: *range, by: UsedBy::ClusterIps }));
    found
}

fn namespaces(objects: &Objects, services: &[PlannedService]) -> BTreeMap<String, Labels> {
    let mut all: BTreeMap<String, Labels> =
        services.iter().map(|service| (service.id.namespace.clone(), Labels::new())).collect();
    for namespace in &objects.namespaces {
        let labels = namespace.metadata.labels.clone().unwrap_or_default();
        all.insert(namespace.metadata.name.clone().unwrap_or_default(), labels);
    }
    for (name, labels) in &mut all {
        complete::namespace(name, labels);
    }
    all
}

fn problem(error: ManifestError, source: &Source) -> Problem {
    let object = error.object;
    let (kind, namespace, name) =
        object.map(|object| (object.kind, object.namespace, object.name)).unwrap_or_default();
    // Without an object its place is all that can be said of it, and `message` is what programs print.
    let (message, file) = if kind.is_empty() {
        (format!("{}, document {}: {}", source.name, error.document, error.message), None)
    } else {
        (error.message, Some(source.name.clone()))
    };
    Problem { kind, namespace, name, field: error.field, message, file }
}

/// Adds the configuration of one more file. A second ConfigMap is an error: which of them would count?
fn merge(all: &mut Resources, found: Resources, source: &Source) -> Option<Problem> {
    all.absorb(found).map(|legacy| Problem {
        kind: "ConfigMap".to_owned(),
        namespace: legacy.namespace,
        name: legacy.name,
        field: "metadata.name".to_owned(),
        message: "there is another ConfigMap of this name in an earlier file".to_owned(),
        file: Some(source.name.clone()),
    })
}
