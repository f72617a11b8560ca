//! What is around a host: a network with a metadata service in it.

use muster_tests::fakes::imds::FakeImds;
use muster_tests::metadata_service::MetadataService;
use muster_tests::network::Namespace;
use muster_tests::test_host::Boot;

/// The service's address; the fake knows the instance by the path.
pub(crate) const IMDS: &str = "http://169.254.169.254/i-1";

pub(crate) struct Surroundings {
    pub(crate) network: Namespace,
    imds: FakeImds,
    _service: MetadataService,
}

impl Surroundings {
    pub(crate) async fn new() -> Self {
        let imds = FakeImds::start().await.unwrap();
        imds.add_instance("i-1", "c7i.large", "eu-west-1", false);
        let endpoint: url::Url = imds.endpoint("i-1").parse().unwrap();
        let target = endpoint.socket_addrs(|| None).unwrap()[0];
        let network = Namespace::new().unwrap();
        let service = MetadataService::beside(&network, target, None).unwrap();
        Self {
            network,
            imds,
            _service: service,
        }
    }

    /// Gives the instance a profile with this role.
    pub(crate) fn give_role(&self, name: &str) {
        let path = "meta-data/iam/security-credentials/";
        self.imds.set("i-1", path, name);
    }

    /// A host in it, as the image is.
    pub(crate) fn host(&self) -> Boot {
        Boot::new(self.network.path())
    }
}
