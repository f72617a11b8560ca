//! Which instance types share a quota of EC2's.
//!
//! EC2 counts virtual processors by market and class of families
//! (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-on-demand-instances.html>,
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-spot-limits.html>).

use std::fmt;

/// Families that share a quota.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Class(String);

impl Class {
    /// The class of a type. A family that isn't known is its own: at worst its quota is asked twice.
    pub(super) fn of(instance_type: &str) -> Self {
        let letters = |char: char| !char.is_ascii_alphabetic();
        let family = instance_type.split(letters).next().unwrap_or_default();
        let class = match family {
            "a" | "c" | "d" | "h" | "i" | "im" | "is" | "m" | "r" | "t" | "z" => "Standard",
            "g" | "gr" | "vt" => "G and VT",
            other => return Self(other.to_ascii_uppercase()),
        };
        Self(class.to_owned())
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("m7i-flex.large", "Standard")]
    #[case("c7gn.16xlarge", "Standard")]
    #[case("im4gn.large", "Standard")]
    #[case("is4gen.large", "Standard")]
    #[case("t3.medium", "Standard")]
    #[case("g5.xlarge", "G and VT")]
    #[case("gr6.4xlarge", "G and VT")]
    #[case("vt1.3xlarge", "G and VT")]
    #[case("p4d.24xlarge", "P")]
    #[case("x2iedn.xlarge", "X")]
    #[case("inf2.xlarge", "INF")]
    #[case("trn1.2xlarge", "TRN")]
    #[case("dl1.24xlarge", "DL")]
    #[case("hpc7g.4xlarge", "HPC")]
    #[case("f1.2xlarge", "F")]
    #[case("u-6tb1.56xlarge", "U")]
    #[case("u7i-12tb.224xlarge", "U")]
    #[case("mac2.metal", "MAC")]
    fn types_are_counted_with_their_class(#[case] instance_type: &str, #[case] class: &str) {
        assert_eq!(Class::of(instance_type).to_string(), class);
    }
}
