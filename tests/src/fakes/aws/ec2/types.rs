//! A dozen of EC2's instance types.

/// An instance type.
#[derive(Clone, Copy, Debug)]
pub struct InstanceType {
    /// Such as `m7i.large`.
    pub name: &'static str,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory.
    pub mib: u32,
    /// `x86_64` or `arm64`.
    pub architecture: &'static str,
    /// About what an hour on demand costs, in thousandths of a cent.
    pub price: u32,
}

const fn x86(name: &'static str, vcpus: u32, gib: u32, price: u32) -> InstanceType {
    InstanceType {
        name,
        vcpus,
        mib: gib * 1024,
        architecture: "x86_64",
        price,
    }
}

const fn arm(name: &'static str, vcpus: u32, gib: u32, price: u32) -> InstanceType {
    InstanceType {
        architecture: "arm64",
        ..x86(name, vcpus, gib, price)
    }
}

/// All types that the fake knows.
pub const TYPES: [InstanceType; 19] = [
    x86("t3.medium", 2, 4, 4_160),
    x86("m5.large", 2, 8, 9_600),
    x86("m6i.large", 2, 8, 9_600),
    x86("m6a.large", 2, 8, 8_640),
    x86("m7i.large", 2, 8, 10_080),
    x86("m7i.xlarge", 4, 16, 20_160),
    x86("m7i.2xlarge", 8, 32, 40_320),
    x86("m7a.xlarge", 4, 16, 23_184),
    x86("c6i.xlarge", 4, 8, 17_000),
    x86("c7i.large", 2, 4, 8_925),
    x86("c7i.xlarge", 4, 8, 17_850),
    x86("c7i.4xlarge", 16, 32, 71_400),
    x86("r7i.large", 2, 16, 13_230),
    x86("g5.xlarge", 4, 16, 100_600),
    arm("t4g.medium", 2, 4, 3_360),
    arm("m7g.large", 2, 8, 8_160),
    arm("m7g.xlarge", 4, 16, 16_320),
    arm("c7g.large", 2, 4, 7_225),
    arm("c7g.xlarge", 4, 8, 14_500),
];

/// The type of a name.
pub(super) fn find(name: &str) -> Option<InstanceType> {
    TYPES.into_iter().find(|known| known.name == name)
}
