//! What EC2 says of the subnets and types that the pools name.

use std::collections::{BTreeMap, BTreeSet};

use muster_core::Shape;

/// Subnets and types that exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Catalog {
    /// Zone of each subnet.
    pub(super) zones: BTreeMap<String, String>,
    /// Size of each type.
    pub(super) sizes: BTreeMap<String, Size>,
}

/// How big an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size {
    /// Virtual processors.
    pub(super) cpus: u32,
    /// Memory in MiB.
    pub(super) memory_mib: u64,
}

impl Catalog {
    /// Those of a pool's types that a shape may run on, best first: of what is big enough, the smallest
    /// in what was asked for, so that a job that asks for 4 processors doesn't get 96.
    pub(super) fn fitting<'a>(&self, types: &'a [String], shape: &Shape) -> Vec<&'a str> {
        let known = types
            .iter()
            .filter_map(|name| Some((name.as_str(), *self.sizes.get(name)?)));
        let big_enough: Vec<_> = known
            .filter(|(name, size)| {
                shape.cpus.is_none_or(|cpus| size.cpus >= cpus)
                    && shape
                        .memory_gib
                        .is_none_or(|gib| size.memory_mib >= u64::from(gib) * 1024)
                    && shape
                        .instance_type
                        .as_ref()
                        .is_none_or(|wanted| wanted == name)
            })
            .collect();
        let asked = |size: &Size| {
            (
                shape.cpus.map(|_| size.cpus),
                shape.memory_gib.map(|_| size.memory_mib),
            )
        };
        let least = big_enough.iter().map(|(_, size)| asked(size)).min();
        big_enough
            .iter()
            .filter(|(_, size)| Some(asked(size)) == least)
            .map(|(name, _)| *name)
            .collect()
    }

    /// Of what the pools name, what EC2 doesn't have.
    pub(super) fn lacking<'a>(
        &self,
        subnets: impl IntoIterator<Item = &'a String>,
        types: impl IntoIterator<Item = &'a String>,
    ) -> BTreeSet<&'a str> {
        let subnets = subnets
            .into_iter()
            .filter(|name| !self.zones.contains_key(*name));
        let types = types
            .into_iter()
            .filter(|name| !self.sizes.contains_key(*name));
        subnets.chain(types).map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn catalog() -> Catalog {
        let size = |cpus, gib: u64| Size {
            cpus,
            memory_mib: gib * 1024,
        };
        Catalog {
            zones: [("subnet-a", "eu-west-1a")]
                .map(|(subnet, zone)| (subnet.to_owned(), zone.to_owned()))
                .into(),
            sizes: [
                ("c7i.large", size(2, 4)),
                ("m7i.large", size(2, 8)),
                ("c7i.xlarge", size(4, 8)),
                ("m7i.xlarge", size(4, 16)),
                ("m7i.24xlarge", size(96, 384)),
            ]
            .map(|(name, size)| (name.to_owned(), size))
            .into(),
        }
    }

    #[rstest]
    #[case::nothing_asked(Shape::default(), &["m7i.large", "c7i.large", "m7i.24xlarge", "m7i.xlarge", "c7i.xlarge"])]
    #[case::cpus(Shape { cpus: Some(3), ..Shape::default() }, &["m7i.xlarge", "c7i.xlarge"])]
    #[case::memory(Shape { memory_gib: Some(5), ..Shape::default() }, &["m7i.large", "c7i.xlarge"])]
    #[case::both(Shape { cpus: Some(2), memory_gib: Some(8), ..Shape::default() }, &["m7i.large"])]
    #[case::type_named(Shape { instance_type: Some("c7i.xlarge".to_owned()), ..Shape::default() }, &["c7i.xlarge"])]
    #[case::too_big(Shape { cpus: Some(128), ..Shape::default() }, &[])]
    fn a_shape_gets_the_smallest_that_is_big_enough(
        #[case] shape: Shape,
        #[case] expected: &[&str],
    ) {
        let types = [
            "m7i.large",
            "c7i.large",
            "m7i.24xlarge",
            "m7i.xlarge",
            "c7i.xlarge",
            "unknown.large",
        ]
        .map(str::to_owned);
        assert_eq!(catalog().fitting(&types, &shape), expected);
    }

    #[test]
    fn what_ec2_lacks_is_named() {
        let subnets = ["subnet-a", "subnet-b"].map(str::to_owned);
        let types = ["m7i.large", "m9z.large"].map(str::to_owned);
        let lacking = catalog().lacking(&subnets, &types);
        assert_eq!(lacking, BTreeSet::from(["m9z.large", "subnet-b"]));
    }
}
